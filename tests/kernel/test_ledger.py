"""The chain: whole as it was written, broken at the very entry after which somebody touched it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from include.kernel.ledger import GENESIS_HASH, Entry, find_broken_entry, hash_line, parse_entry


def chain(count: int, last: str = GENESIS_HASH) -> list[bytes]:
    lines = []
    for number in range(count):
        entry = Entry(what="release.live", subject=str(number), who="a test", why="to see", previous=last)
        lines.append(entry.model_dump_json().encode())
        last = hash_line(lines[-1])
    return lines


def altered(line: bytes) -> bytes:
    return line.replace(b"to see", b"to hide")


def test_a_chain_as_it_was_written_is_whole():
    for count in range(4):
        assert find_broken_entry(chain(count)) is None


@given(st.integers(2, 8), st.data())
def test_a_changed_entry_is_found_by_the_one_after_it(count, data):
    lines = chain(count)
    at = data.draw(st.integers(0, count - 2))
    assert find_broken_entry([*lines[:at], altered(lines[at]), *lines[at + 1 :]]) == at + 2


@given(st.integers(3, 8), st.data())
def test_an_entry_that_was_taken_out_or_moved_is_found(count, data):
    lines = chain(count)
    at = data.draw(st.integers(0, count - 2))
    assert find_broken_entry([*lines[:at], *lines[at + 1 :]]) == at + 1
    assert find_broken_entry([*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]) == at + 1


def test_an_entry_that_was_put_in_is_found():
    lines, forged = chain(3), Entry(what="release.live", subject="9", who="", why="").model_dump_json().encode()
    assert find_broken_entry([*lines[:2], forged, lines[2]]) == 3


def test_what_is_no_entry_is_passed_over_and_cannot_hide_one():
    lines = chain(3)
    assert find_broken_entry([lines[0], b'{"what": "cut of', lines[1], b"", lines[2], b""]) is None
    assert find_broken_entry([lines[0], b"{}", lines[2]]) == 2


def test_entries_from_before_the_chain_are_its_beginning():
    old = [Entry(what="gate.passed", subject="1", who="", why="").model_dump_json().encode() for _ in range(2)]
    lines = [*old, *chain(2, hash_line(old[-1]))]
    assert find_broken_entry(lines) is None
    assert find_broken_entry([old[0], altered(old[1]).replace(b"gate.passed", b"gate.fooled"), *lines[2:]]) == 3


def test_the_end_of_a_chain_may_be_cut_off_unseen_so_its_hash_is_printed_for_noting():
    lines = chain(3)
    assert find_broken_entry(lines[:2]) is None
    assert parse_entry(lines[2]).previous == hash_line(lines[1])
