"""What decides about a model is in the identity of its training: every line of every module, wherever it stands."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from include.kernel.code_digest import (
    INGESTING,
    JUDGING,
    ROOT,
    TRAINING,
    compute_code_digest,
    digest_training_code,
    find_imported_files,
    list_foreign_imports,
)
from include.kernel.errors import Permanent


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "include", tmp_path / "include", ignore=shutil.ignore_patterns("__pycache__", "*.csv"))
    return tmp_path


def test_a_copy_elsewhere_is_the_same_code(copy: Path) -> None:
    assert compute_code_digest(*TRAINING, root=copy) == compute_code_digest(*TRAINING)


def test_a_change_of_any_line_that_trains_is_another_training(copy: Path) -> None:
    before, seen = compute_code_digest(*TRAINING), set()
    for path in sorted(find_imported_files(TRAINING, copy)):
        written = path.read_bytes()
        path.write_bytes(written + b"# a comment\n")
        compute_code_digest.cache_clear()
        seen.add(compute_code_digest(*TRAINING, root=copy))
        path.write_bytes(written)
    assert len(seen) == len(find_imported_files(TRAINING)) and before not in seen


def test_a_moved_module_is_another_training(copy: Path) -> None:
    moved = copy / "include/model/pipelines.py"
    moved.rename(moved.with_name("estimators.py"))
    for path in (copy / "include").rglob("*.py"):
        path.write_text(path.read_text().replace("pipelines", "estimators"))
    assert compute_code_digest(*TRAINING, root=copy) != compute_code_digest(*TRAINING)


def test_what_a_training_never_imports_is_none_of_its_identity(copy: Path) -> None:
    (copy / "include/serving/app.py").write_text("")
    assert compute_code_digest(*TRAINING, root=copy) == compute_code_digest(*TRAINING)


@pytest.mark.parametrize("entries", [TRAINING, JUDGING, INGESTING])
def test_all_that_is_loaded_with_the_job_is_in_its_identity(entries: tuple[str, ...]) -> None:
    told = (
        f"import sys, {', '.join(entries)}; print(*[m.__file__ for n, m in sys.modules.items() if n[:7] == 'include'])"
    )
    loaded = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True)
    files = {Path(name) for name in loaded.stdout.split() if name != "None"}
    assert files and files <= find_imported_files(entries)


def test_a_module_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModuleNotFoundError, match="include\\.nowhere"):
        compute_code_digest("include.nowhere")


def test_a_feature_function_that_is_not_there_is_told_in_one_sentence() -> None:
    with pytest.raises(
        Permanent, match=r"'include\.nowhere:f' cannot be imported: There is no module include\.nowhere"
    ):
        digest_training_code("include.nowhere:f")


def test_relative_imports_are_followed_and_foreign_ones_told(tmp_path: Path) -> None:
    written = {
        "own/__init__.py": "from .near import value\n",
        "own/near.py": "value = 1\n",
        "own/deep/__init__.py": "",
        "own/deep/entry.py": "from . import beside\nfrom ..near import value\nimport yaml.nodes\n",
        "own/deep/beside.py": "",
        "own/deep/unused.py": "",
    }
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = find_imported_files(("own.deep.entry",), tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in found} == {*written} - {"own/deep/unused.py"}
    assert list_foreign_imports({tmp_path / "own/deep/entry.py"}, tmp_path) == {"yaml"}
