"""A PostgreSQL table as the source of days: missing, refused, bad inside, or with its server down."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import psycopg

from tests.counterparts import Database
from tests.proofs.data_proof import Proof
from tests.proofs.delivery import rows_of
from tests.proofs.outcomes import Named, must


class Table:
    """One schema of the shared PostgreSQL server with the good day in it, and a pipeline that reads from it."""

    def __init__(self, proof: Proof, server: Database) -> None:
        self.pipeline = proof.pipeline()
        self.server = server
        self.name = f"{self.pipeline.home.name.replace('-', '_')}.customers"
        with server.connect() as connection:
            connection.execute(f"CREATE SCHEMA {self.name.split('.')[0]}")
            connection.execute(
                f"CREATE TABLE {self.name} (customer text, at timestamptz, tenure int, plan text, spend float8,"
                " outcome text)"
            )
            with connection.cursor() as cursor:
                places = "%(customer)s, %(at)s, %(tenure)s, %(plan)s, %(spend)s, %(outcome)s"
                cursor.executemany(f"INSERT INTO {self.name} VALUES ({places})", rows_of())  # type: ignore[arg-type]
        self.point(self.name)
        self.pipeline.environment = {"EVERGREEN_POSTGRES_DSN": server.dsn()}

    def point(self, table: str, **more: Any) -> None:
        self.pipeline.source = {"kind": "postgres", "table": table, "interval_column": "at", **more}
        self.pipeline.configure()


def a_table_that_is_not_there(proof: Proof, server: Database) -> None:
    table = Table(proof, server)
    table.point(f"{table.name}_")
    before, ended = table.pipeline.published(), table.pipeline.ingest()
    told = (f"there is no table {table.name}_", "create it, or correct source.table")
    proof.refused(table.pipeline, ended, before, 65, "DataRefused", *told)
    table.point(table.name)
    proof.recovers(table.pipeline)


def a_column_that_is_not_there(proof: Proof, server: Database) -> None:
    table = Table(proof, server)
    columns = ["customer", "at", "tenure", "plan", "spend", "outcome"]
    table.point(table.name, columns=[*columns[:4], "expense", "outcome"])
    before, ended = table.pipeline.published(), table.pipeline.ingest()
    told = (table.name, 'column "expense" does not exist', "correct the manifest")
    proof.refused(table.pipeline, ended, before, 65, "DataRefused", *told)
    table.point(table.name, columns=columns)
    proof.recovers(table.pipeline)


def a_wrong_password(proof: Proof, server: Database) -> None:
    table = Table(proof, server)
    reader = table.pipeline.home.name.replace("-", "_")
    with server.connect() as connection:
        connection.execute(f"CREATE USER {reader} PASSWORD 'right'")
        connection.execute(f"GRANT USAGE ON SCHEMA {reader} TO {reader}")
        connection.execute(f"GRANT SELECT ON {table.name} TO {reader}")
    table.pipeline.environment = {"EVERGREEN_POSTGRES_DSN": server.dsn(reader, "canary-secret")}
    before, ended = table.pipeline.published(), table.pipeline.ingest()
    told = (table.name, "password authentication failed", "Airflow Connection evergreen_postgres")
    proof.refused(table.pipeline, ended, before, 65, "AccessRefused", *told)
    must("canary-secret" not in ended.told + ended.log, "tells the password")
    table.pipeline.environment = {"EVERGREEN_POSTGRES_DSN": server.dsn(reader, "right")}
    proof.recovers(table.pipeline)


def a_bad_row_in_a_table(proof: Proof, server: Database) -> None:
    table = Table(proof, server)
    with server.connect() as connection:
        connection.execute(f"UPDATE {table.name} SET spend = 'infinity' WHERE customer LIKE '%-00003'")
        before, ended = table.pipeline.published(), table.pipeline.ingest()
        told = (table.name, "spend: finite", "1 of 100 rows (4)")
        proof.refused(table.pipeline, ended, before, 65, "DataRefused", *told)
        spend = rows_of()[3]["spend"]
        connection.execute(f"UPDATE {table.name} SET spend = {spend} WHERE customer LIKE '%-00003'")
    proof.recovers(table.pipeline)


def a_server_that_is_down(proof: Proof, server: Database) -> None:
    table = Table(proof, server)
    server.stop("immediate")
    try:
        before, ended = table.pipeline.published(), table.pipeline.ingest()
        proof.refused(table.pipeline, ended, before, 75, "ServiceUnavailable", table.name, "try again later")
    finally:
        server.start()
    wait_until_it_answers(server)
    proof.recovers(table.pipeline)


def wait_until_it_answers(server: Database, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            server.connect().close()
            return
        except psycopg.OperationalError:
            must(time.monotonic() < deadline, "PostgreSQL did not come back")
            time.sleep(0.1)


def of_tables(proof: Proof, server: Database) -> list[Named]:
    return [
        ("PostgreSQL: missing table", partial(a_table_that_is_not_there, proof, server)),
        ("PostgreSQL: missing column", partial(a_column_that_is_not_there, proof, server)),
        ("PostgreSQL: wrong password", partial(a_wrong_password, proof, server)),
        ("PostgreSQL: a bad row", partial(a_bad_row_in_a_table, proof, server)),
    ]
