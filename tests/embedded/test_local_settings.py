"""A savepoint on SQLite is part of a transaction, and a writer waits for another one instead of failing at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from include.embedded.configuration.environment import LOCAL_SETTINGS

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
if sys.argv[3] == "with":
    import airflow_local_settings
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
engine = create_engine(f"sqlite:///{sys.argv[2]}?timeout=10")
with engine.begin() as connection:
    connection.execute(text("PRAGMA journal_mode=WAL"))
    connection.execute(text("create table rows (x)"))

def count():
    with engine.connect() as connection:
        return connection.execute(text("select count(*) from rows")).scalar()

with Session(engine) as session:
    with session.begin_nested():
        session.execute(text("select * from rows")).all()
        session.execute(text("insert into rows values (1)"))
    print("seen by others before the commit:", count())
    session.rollback()
print("left after the rollback:", count())
"""


def _run(place: Path, how: str) -> str:
    command = [sys.executable, "-c", PROGRAM, str(LOCAL_SETTINGS), str(place / f"{how}.db"), how]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_with_our_settings_a_savepoint_commits_nothing_by_itself(tmp_path: Path) -> None:
    told = _run(tmp_path, "with")
    assert "seen by others before the commit: 0" in told
    assert "left after the rollback: 0" in told


def test_without_them_it_does_which_is_why_they_exist(tmp_path: Path) -> None:
    told = _run(tmp_path, "without")
    assert "left after the rollback: 1" in told
