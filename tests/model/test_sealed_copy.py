import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from include.kernel.errors import ArtifactRejected
from include.model.integrity import artifact_integrity
from include.model.integrity.artifact_integrity import compute_digest, copy_verified, read_contents, read_verified


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    (directory / "more").mkdir(parents=True)
    (directory / "artifact.json").write_text("{}")
    (directory / "more" / "baseline.json").write_text("[1]")
    return directory


def test_the_digest_depends_on_names_and_bytes_and_on_nothing_else(source: Path, tmp_path: Path) -> None:
    before = compute_digest(source)
    os.utime(source / "artifact.json", (1, 1))
    (source / "artifact.json").chmod(0o600)
    assert compute_digest(source) == compute_digest(shutil.copytree(source, tmp_path / "elsewhere")) == before


def test_another_name_or_another_byte_is_another_digest(source: Path) -> None:
    seen = {compute_digest(source)}
    (source / "artifact.json").rename(source / "other.json")
    seen.add(compute_digest(source))
    (source / "other.json").write_text("{ }")
    assert len(seen | {compute_digest(source)}) == 3


def test_a_copy_lies_under_its_digest_and_is_made_once(source: Path, tmp_path: Path) -> None:
    first = copy_verified(source, tmp_path / "root", compute_digest(source))
    stamp = first.stat().st_mtime_ns
    again = copy_verified(source, tmp_path / "root", compute_digest(source))
    assert again == first == tmp_path / "root" / compute_digest(source)
    assert first.stat().st_mtime_ns == stamp and compute_digest(first) == first.name


def test_content_that_is_not_what_was_promised_is_refused_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    promised = compute_digest(source)
    (source / "artifact.json").write_text("tampered")
    with pytest.raises(ArtifactRejected, match="has the digest"):
        copy_verified(source, tmp_path / "root", promised)
    assert list((tmp_path / "root").iterdir()) == []


def test_a_damaged_copy_is_replaced(source: Path, tmp_path: Path) -> None:
    copy = copy_verified(source, tmp_path / "root", compute_digest(source))
    (copy / "artifact.json").unlink()
    assert compute_digest(copy_verified(source, tmp_path / "root", compute_digest(source))) == copy.name
    assert list((tmp_path / "root").iterdir()) == [copy]


def test_many_may_copy_the_same_artifact_at_once(source: Path, tmp_path: Path) -> None:
    promised = compute_digest(source)
    with ThreadPoolExecutor(8) as pool:
        copies = list(pool.map(lambda _: copy_verified(source, tmp_path / "root", promised), range(16)))
    assert set(copies) == set((tmp_path / "root").iterdir()) == {tmp_path / "root" / promised}


def test_a_symbolic_link_is_refused(source: Path) -> None:
    (source / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactRejected, match="symbolic link, passwd"):
        compute_digest(source)


def test_a_source_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ArtifactRejected, match="There is no artifact at"):
        copy_verified(tmp_path / "nowhere", tmp_path / "root", "0" * 64)


def test_many_may_repair_the_same_damaged_copy_at_once(source: Path, tmp_path: Path) -> None:
    promised = compute_digest(source)
    (copy_verified(source, tmp_path / "root", promised) / "artifact.json").write_text("damaged")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: copy_verified(source, tmp_path / "root", promised), range(16)))
    assert [compute_digest(path) for path in (tmp_path / "root").iterdir()] == [promised]


def test_what_was_checked_is_what_is_handed_over_even_if_the_file_is_exchanged_later(source: Path) -> None:
    files = read_verified(source, compute_digest(source))
    (source / "artifact.json").write_text("tampered")
    assert files == {"artifact.json": b"{}", "more/baseline.json": b"[1]"}
    with pytest.raises(ArtifactRejected, match="has the digest"):
        read_verified(source, compute_digest(source)[::-1])


def test_neither_a_link_nor_more_than_memory_should_hold_is_read(source: Path, monkeypatch) -> None:
    monkeypatch.setattr(artifact_integrity, "MAX_BYTES", 4)
    with pytest.raises(ArtifactRejected, match="holds 5 bytes, and 4 is the most"):
        read_contents(source)
    (source / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactRejected, match="symbolic link, passwd"):
        read_contents(source)
    with pytest.raises(ArtifactRejected, match="passwd cannot be read"):
        artifact_integrity._read_plain_file(source / "passwd")
