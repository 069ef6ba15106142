"""The rows of one PostgreSQL table whose interval column lies in the day, in UTC, through a server-side cursor.

The transaction is read-only and sees one moment of the table, however long it is read. Rows come in the order of the
interval column and then of the id, since a table has no order of delivery and the same rows must give the same
snapshot. Types are the table's; `numeric` becomes a float, and a type Arrow has no plain counterpart for its text.

psycopg speaks the protocol. Table and columns were checked as identifiers by the manifest and are quoted here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import FloatLoader
from psycopg.types.string import TextLoader

from include.adapters.delivered_files import Budget, shown
from include.adapters.sources import POSTGRES_CONNECTION as CONNECTION
from include.adapters.sources import POSTGRES_VARIABLE as VARIABLE
from include.adapters.sources import Source, WholeDay
from include.core.errors import AccessRefused, DataRefused, EvergreenError, RequestInvalid, ServiceUnavailable
from include.core.manifest import PostgresSource

TYPES = {
    "bool": pa.bool_(),
    "int2": pa.int64(),
    "int4": pa.int64(),
    "int8": pa.int64(),
    "float4": pa.float64(),
    "float8": pa.float64(),
    "numeric": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
}


class Postgres(Source):
    def __init__(self, spec: PostgresSource, id_column: str) -> None:
        """Raises `RequestInvalid` when the environment does not say where the server is."""
        self._spec = spec
        self._id_column = id_column
        self._dsn = os.environ.get(VARIABLE, "")
        if not self._dsn:
            raise RequestInvalid(f"{VARIABLE} is not set; create the Airflow Connection {CONNECTION}, or set it.")

    def parts(self, day: date) -> list[WholeDay]:
        return [WholeDay(self._spec.table, lambda budget: self._read(day, budget))]

    def budget(self) -> Budget:
        return Budget(self._spec.max_gib)

    def _read(self, day: date, budget: Budget) -> Iterator[pa.RecordBatch]:
        with self._explained(), self._cursor() as cursor:
            cursor.execute(self._query(), (day, day + timedelta(days=1)))
            schema = self._schema(cursor)
            while rows := cursor.fetchmany(self._spec.fetch_rows):
                batch = self._batch(schema, rows)
                budget.spend(self._spec.table, batch.nbytes)
                yield batch

    def describe(self, day: date) -> str:
        return f"{self._place}?{self._spec.interval_column}={day}/{day + timedelta(days=1)}&tz=UTC"

    @property
    def _place(self) -> str:
        server = conninfo_to_dict(self._dsn)
        where = f"{server.get('host', 'localhost')}:{server.get('port', 5432)}/{server.get('dbname', '')}"
        return f"postgresql://{where}/{self._spec.table}"

    @contextmanager
    def _cursor(self) -> Iterator[psycopg.ServerCursor[Any]]:
        with psycopg.connect(self._dsn, **self._options()) as connection:
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            milliseconds = str(int(self._spec.statement_timeout_s * 1000))
            connection.execute("SELECT set_config('TimeZone', 'UTC', true)")
            connection.execute("SELECT set_config('statement_timeout', %s, true)", (milliseconds,))
            _load_plainly(connection)
            with connection.cursor(name="evergreen_source") as cursor:
                yield cursor

    def _options(self) -> dict[str, Any]:
        """A server that vanished is noticed after a minute: idle seconds, then seconds between so many probes."""
        lively = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        return {"connect_timeout": self._spec.connect_timeout_s, "application_name": "evergreen", **lively}

    def _query(self) -> sql.Composed:
        columns = [sql.Identifier(name) for name in self._spec.columns]
        interval = sql.Identifier(self._spec.interval_column)
        return sql.SQL(
            "SELECT {columns} FROM {table} WHERE {interval} >= %s AND {interval} < %s ORDER BY {interval}, {id}"
        ).format(
            columns=sql.SQL(", ").join(columns) if columns else sql.SQL("*"),
            table=sql.Identifier(*self._spec.table.split(".")),
            interval=interval,
            id=sql.Identifier(self._id_column),
        )

    @staticmethod
    def _schema(cursor: psycopg.ServerCursor[Any]) -> pa.Schema:
        known = {cursor.connection.adapters.types[name].oid: kind for name, kind in TYPES.items()}
        return pa.schema(
            [(column.name, known.get(column.type_code, pa.string())) for column in cursor.description or ()]
        )

    def _batch(self, schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
        columns = zip(*rows, strict=True)
        arrays = [self._array(field, values) for field, values in zip(schema, columns, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _array(self, field: pa.Field, values: tuple[Any, ...]) -> pa.Array:
        try:
            return pa.array(values, field.type)
        except (pa.ArrowException, OverflowError) as error:
            raise DataRefused(
                f"Column {shown(field.name)} of table {self._spec.table} holds what is no {field.type} "
                f"({shown(str(error))}); read it through a view that casts it."
            ) from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise _problem(error, self._spec, self._place) from error


def _load_plainly(connection: psycopg.Connection[Any]) -> None:
    """Types without a plain Arrow counterpart are left as the text the server sends."""
    for info in connection.adapters.types:
        loader = FloatLoader if info.name == "numeric" else TextLoader
        if info.name == "numeric" or info.name not in TYPES:
            connection.adapters.register_loader(info.oid, loader)
        connection.adapters.register_loader(info.array_oid, TextLoader)


def _problem(error: psycopg.Error, spec: PostgresSource, place: str) -> EvergreenError:
    cause = " ".join((error.diag.message_primary or str(error)).split())
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        return DataRefused(f"{place}: there is no table {spec.table}; create it, or correct source.table.")
    if isinstance(error, psycopg.errors.UndefinedColumn):
        return DataRefused(f"{place}: {cause}; add it, or correct the manifest.")
    if isinstance(error, psycopg.errors.UndefinedFunction | psycopg.errors.DatatypeMismatch):
        return DataRefused(f"{place}: {spec.interval_column} is no date or timestamp; correct source.interval_column.")
    if _is_about_rights(error, cause):
        return AccessRefused(
            f"{place} refused us ({cause}); renew the password in the Airflow Connection {CONNECTION}, or grant its "
            "user SELECT on the table."
        )
    if isinstance(error, psycopg.errors.InvalidCatalogName) or re.search(r'database ".*" does not exist', cause):
        return RequestInvalid(f"{place}: {cause}; correct the database of the Airflow Connection {CONNECTION}.")
    if isinstance(error, psycopg.DataError):
        return DataRefused(f"{place}: a value cannot be read ({cause}); read it through a view that leaves it out.")
    return ServiceUnavailable(f"{place} cannot be read now ({cause}); start the server or try again later.")


def _is_about_rights(error: psycopg.Error, cause: str) -> bool:
    """A refused login carries no code in libpq's answer, only its text."""
    known = psycopg.errors.InsufficientPrivilege | psycopg.errors.InvalidPassword
    refused = ("password authentication failed", "no password supplied", "no pg_hba.conf entry", 'role "')
    return isinstance(error, known) or (error.sqlstate is None and any(text in cause for text in refused))
