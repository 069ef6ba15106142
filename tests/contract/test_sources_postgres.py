"""The PostgreSQL source against a real server, on TCP, with passwords."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from include.data.sources.base import POSTGRES_VARIABLE
from include.data.sources.postgres import Postgres
from include.data.spec import PostgresSource
from include.kernel.errors import AccessRefused, DataRefused, EvergreenError, RequestInvalid, ServiceUnavailable
from tests import counterparts
from tests.counterparts import Database

DAY = date(2026, 8, 1)
Make = Callable[..., Postgres]


@pytest.fixture(scope="module")
def running() -> Iterator[Database]:
    with counterparts.database() as server:
        with server.connect() as connection:
            connection.execute("CREATE USER reader PASSWORD 'it''s \\right'")
            connection.execute("CREATE SCHEMA lending")
            connection.execute("GRANT USAGE ON SCHEMA lending TO reader")
        yield server


@pytest.fixture
def server(running: Database) -> Iterator[Database]:
    """A table of the day before, the day and the day after, written backwards."""
    with running.connect() as connection:
        connection.execute(
            "CREATE TABLE lending.applications (id text, at timestamptz, amount numeric(12, 2), count int, agreed bool,"
            " opened date, seen timestamp, tags text[], more jsonb)"
        )
        connection.execute(
            "INSERT INTO lending.applications SELECT 'A' || lpad(n::text, 4, '0'),"
            " '2026-07-31 00:00+00'::timestamptz + n * interval '1 minute', n / 4.0, NULLIF(n, 1500), n % 2 = 0,"
            " '2026-08-01', '2026-08-01 12:00', ARRAY['x', 'y'], '{\"a\": 1}' FROM generate_series(4319, 0, -1) n"
        )
        connection.execute("GRANT SELECT ON lending.applications TO reader")
    yield running
    with running.connect() as connection:
        connection.execute("DROP TABLE lending.applications CASCADE")


@pytest.fixture
def source(server: Database, monkeypatch: pytest.MonkeyPatch) -> Make:
    def make(user: str = "reader", password: str = r"it\'s \\right", dbname: str = "postgres", **spec: Any) -> Postgres:
        monkeypatch.setenv(POSTGRES_VARIABLE, server.dsn(user, password, dbname))
        settings = {"kind": "postgres", "table": "lending.applications", "interval_column": "at", **spec}
        return Postgres(PostgresSource.model_validate(settings), "id")

    return make


def rows(source: Postgres) -> list[dict[str, Any]]:
    return [row for batch in source.read_batches(DAY) for row in batch.to_pylist()]


def test_a_day_is_its_interval_in_utc_in_the_order_of_time(source: Make) -> None:
    found = rows(source())
    assert [row["id"] for row in found] == [f"A{number:04d}" for number in range(1440, 2880)]
    assert found[0]["at"] == datetime(2026, 8, 1, tzinfo=UTC)


def test_the_session_s_time_zone_moves_no_row(source: Make, server: Database) -> None:
    with server.connect() as connection:
        connection.execute("ALTER ROLE reader SET TimeZone TO 'America/New_York'")
    assert [row["id"] for row in rows(source())][::1439] == ["A1440", "A2879"]
    assert len(rows(source(interval_column="opened"))) == len(rows(source(interval_column="seen"))) == 4320


def test_types_are_the_table_s_and_what_arrow_has_no_plain_type_for_comes_as_text(source: Make) -> None:
    [batch] = source().read_batches(DAY)
    assert {field.name: field.type for field in batch.schema} == {
        "id": pa.string(),
        "at": pa.timestamp("us", tz="UTC"),
        "amount": pa.float64(),
        "count": pa.int64(),
        "agreed": pa.bool_(),
        "opened": pa.date32(),
        "seen": pa.timestamp("us"),
        "tags": pa.string(),
        "more": pa.string(),
    }
    [row] = batch.slice(60, 1).to_pylist()
    assert (row["count"], row["amount"], row["tags"], row["more"]) == (None, 375.0, "{x,y}", '{"a": 1}')


def test_rows_come_in_bounded_batches(source: Make) -> None:
    batches = list(source(fetch_rows=500).read_batches(DAY))
    assert [batch.num_rows for batch in batches] == [500, 500, 440]


def test_named_columns_alone_are_read(source: Make) -> None:
    assert rows(source(columns=("id", "count")))[0] == {"id": "A1440", "count": 1440}


def test_a_day_without_rows_was_not_delivered(source: Make) -> None:
    assert list(source().read_batches(date(2020, 1, 1))) == []


def test_the_description_holds_the_place_and_the_interval_and_no_secret(source: Make, server: Database) -> None:
    told = source().describe(DAY)
    place = f"postgresql://127.0.0.1:{server.port}/postgres/lending.applications"
    assert told == f"{place}?at=2026-08-01/2026-08-02&tz=UTC"


REFUSED: list[tuple[dict[str, Any], type[EvergreenError], str]] = [
    ({"password": "wrong"}, AccessRefused, "password authentication failed.*Airflow Connection evergreen_postgres"),
    ({"password": ""}, AccessRefused, "no password supplied.*Airflow Connection evergreen_postgres"),
    ({"dbname": "nowhere"}, RequestInvalid, 'database "nowhere" does not exist; correct the database of the Airflow'),
    ({"table": "lending.application"}, DataRefused, "there is no table lending.application; create it, or correct"),
    ({"table": "landing.applications"}, DataRefused, "there is no table landing.applications"),
    ({"interval_column": "on"}, DataRefused, 'column "on" does not exist; add it, or correct the manifest'),
    ({"columns": ("id", "sum")}, DataRefused, 'column "sum" does not exist; add it'),
    ({"interval_column": "count"}, DataRefused, r"count is no date or timestamp; correct source\.interval_column"),
    ({"max_gib": 1e-6}, DataRefused, r"lending\.applications unfolds to more than source\.max_gib = 1e-06 GiB"),
]


@pytest.mark.parametrize(("wrong", "kind", "told"), REFUSED)
def test_what_cannot_be_read_is_told_in_one_sentence(
    source: Make, wrong: dict[str, Any], kind: type[EvergreenError], told: str
) -> None:
    with pytest.raises(kind, match=told) as caught:
        rows(source(**wrong))
    assert "\n" not in str(caught.value) and "applic" in str(caught.value)


def test_a_table_we_may_not_read_is_told_with_the_right_that_is_missing(source: Make, server: Database) -> None:
    with server.connect() as connection:
        connection.execute("REVOKE SELECT ON lending.applications FROM reader")
    with pytest.raises(AccessRefused, match=r"permission denied for table applications.*grant its user SELECT"):
        rows(source())


def test_a_value_no_calendar_has_is_refused_and_not_guessed(source: Make, server: Database) -> None:
    with server.connect() as connection:
        connection.execute("UPDATE lending.applications SET seen = 'infinity' WHERE id = 'A2000'")
    with pytest.raises(DataRefused, match=r"a value cannot be read \(.*\); read it through a view"):
        rows(source())


def test_a_statement_that_takes_too_long_is_stopped_and_worth_another_try(source: Make, server: Database) -> None:
    with server.connect() as connection:
        connection.execute("CREATE VIEW lending.slow AS SELECT *, pg_sleep(0.01)::text FROM lending.applications")
        connection.execute("GRANT SELECT ON lending.slow TO reader")
        try:
            with pytest.raises(ServiceUnavailable, match=r"cannot be read now .*statement timeout"):
                rows(source(table="lending.slow", statement_timeout_s=0.2))
        finally:
            connection.execute("DROP VIEW lending.slow")


def test_a_read_writes_nothing_even_where_it_could(source: Make, server: Database) -> None:
    with server.connect() as connection:
        connection.execute("CREATE TABLE lending.trail (at timestamptz)")
        connection.execute(
            "CREATE FUNCTION lending.leave_trail() RETURNS text LANGUAGE sql AS"
            " 'INSERT INTO lending.trail VALUES (now()) RETURNING at::text'"
        )
        connection.execute("CREATE VIEW lending.traced AS SELECT *, lending.leave_trail() t FROM lending.applications")
        with pytest.raises(EvergreenError, match="read-only transaction"):
            rows(source("postgres", "", table="lending.traced"))
        assert connection.execute("SELECT count(*) FROM lending.trail").fetchone() == (0,)


def test_a_server_that_dies_while_it_is_read_and_one_that_is_down_are_worth_another_try(
    source: Make, server: Database
) -> None:
    batches = source(fetch_rows=500).read_batches(DAY)
    assert next(batches).num_rows == 500
    server.stop("immediate")
    try:
        with pytest.raises(ServiceUnavailable, match="cannot be read now"):
            list(batches)
        with pytest.raises(ServiceUnavailable, match=r"Connection refused.*start the server or try again later"):
            rows(source())
    finally:
        server.start()
    assert len(rows(source())) == 1440  # as soon as it is back


def test_without_a_server_in_the_environment_the_connection_to_create_is_named(
    source: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = PostgresSource(kind="postgres", table="a", interval_column="at")
    monkeypatch.delenv(POSTGRES_VARIABLE, raising=False)
    with pytest.raises(RequestInvalid, match=f"{POSTGRES_VARIABLE} is not set; create the Airflow Connection"):
        Postgres(spec, "id")


def test_names_are_quoted_and_never_run(source: Make, server: Database) -> None:
    with server.connect() as connection:
        connection.execute('CREATE TABLE lending."select" (id text, "from" date)')
        connection.execute("INSERT INTO lending.\"select\" VALUES ('A', '2026-08-01')")
    assert rows(source("postgres", "", table="lending.select", interval_column="from"))[0]["id"] == "A"
    with server.connect() as connection, pytest.raises(psycopg.errors.SyntaxError):
        connection.execute("SELECT from FROM lending.select")
