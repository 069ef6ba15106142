"""Airflow imports this module by its name at every start; the embedded stack puts its folder on Airflow's path.

One cure for SQLite: Airflow creates a backfill's runs inside savepoints. Python's driver opens no transaction for a
savepoint, so each one commits alone, and fails with "database is locked", without waiting, when the scheduler writes
between its first read and its first write. A half-made backfill is then deleted under the scheduler's hands, which
ends the scheduler. Beginning a write transaction first makes the whole backfill one transaction that waits its turn.
"""

from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine


@event.listens_for(Engine, "savepoint")
def begin_before_savepoint(connection: Connection, name: str) -> None:
    if connection.dialect.name != "sqlite":
        return
    driver = connection.connection.driver_connection
    if driver is not None and not getattr(driver, "in_transaction", True):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
