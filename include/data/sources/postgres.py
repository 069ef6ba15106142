"""The rows of one PostgreSQL table whose interval column lies in the day, in UTC, through a server-side cursor.

The transaction is read-only and sees one moment of the table, however long it is read. Rows come in the order of the
interval column and then of the id, since a table has no order of delivery and the same rows must give the same
snapshot. Types are the table's; `numeric` becomes a float, and a type Arrow has no plain counterpart for its text.

Two machines cannot share a transaction, so a day that is read in slices is held together by digests: whoever puts it
together asks the server, in its own transaction, for the sha256 of each slice's rows. One that another machine read at
another moment and that has the same digest holds the rows of this moment; any other is read again. A digest costs the
server a scan and a sort of the slice, and saves sending and unpacking it, which takes many times longer.

psycopg speaks the protocol. Table and columns were checked as identifiers by the manifest and are quoted here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import FloatLoader
from psycopg.types.string import TextLoader

from include.data.sources.base import POSTGRES_CONNECTION as CONNECTION
from include.data.sources.base import POSTGRES_VARIABLE as VARIABLE
from include.data.sources.base import Budget, Declared, DeliveryPart, Source, WholeDay, is_declared
from include.data.sources.delivered_files import quote_name
from include.data.spec import PostgresSource
from include.kernel.errors import AccessRefused, DataRefused, EvergreenError, RequestInvalid, ServiceUnavailable

log = logging.getLogger(__name__)
Connection = psycopg.Connection[Any]
ARROW_TYPES = {
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


class SharedTransaction:
    """A transaction that several slices are read in; it begins when it is needed, and anew after an error."""

    def __init__(self, connect: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._connect = connect
        self._held = ExitStack()
        self._connection: Connection | None = None
        self.digests: dict[tuple[date, date], str] = {}

    @contextmanager
    def open_connection(self) -> Iterator[Connection]:
        if self._connection is None:
            self._connection = self._held.enter_context(self._connect())
        try:
            yield self._connection
        except BaseException:
            with suppress(psycopg.Error):  # of a connection that is broken, which is told already
                self.close()
            raise

    def close(self) -> None:
        self._connection = None
        self.digests.clear()
        self._held.close()


@dataclass(frozen=True)
class TableSlice(DeliveryPart):
    """The rows of [since, until), both in UTC."""

    source: Postgres
    transaction: SharedTransaction
    since: datetime
    until: datetime

    @property
    def name(self) -> str:
        return self.source.build_span_uri(self._span)

    @property
    def _span(self) -> tuple[datetime, datetime]:
        return self.since, self.until

    def find_identity(self) -> str:
        with self.source.translate_errors(), self.transaction.open_connection() as connection:
            if self._span not in self.transaction.digests:
                self.transaction.digests[self._span] = self.source.compute_digest(connection, self._span)
            return self.transaction.digests[self._span]

    def read(self, budget: Budget) -> Iterator[pa.RecordBatch]:
        with self.source.translate_errors(), self.transaction.open_connection() as connection:
            yield from self.source.fetch_batches(connection, self._span, budget)


def split_day(day: date, count: int) -> list[tuple[datetime, datetime]]:
    """The day in `count` equal spans, to the microsecond."""
    began, whole = datetime.combine(day, time()), timedelta(days=1)
    edges = [began + whole * number // count for number in range(count + 1)]
    return list(pairwise(edges))


class Postgres(Source):
    def __init__(self, spec: PostgresSource, id_column: str, declared: Declared = None) -> None:
        """Raises `RequestInvalid` when the environment does not say where the server is."""
        self._spec, self._declared = spec, declared
        self._id_column = id_column
        self._transaction: SharedTransaction | None = None
        self._dsn = os.environ.get(VARIABLE, "")
        if not self._dsn:
            raise RequestInvalid(f"{VARIABLE} is not set; create the Airflow Connection {CONNECTION}, or set it.")

    def list_parts(self, day: date) -> Sequence[DeliveryPart]:
        if self._spec.slices == 1:
            return [WholeDay(self._spec.table, lambda budget: self._read(day, budget))]
        self.close()
        self._transaction = SharedTransaction(self._connect)
        return [TableSlice(self, self._transaction, since, until) for since, until in split_day(day, self._spec.slices)]

    def make_budget(self) -> Budget:
        return Budget(self._spec.max_gib)

    def close(self) -> None:
        if self._transaction:
            self._transaction.close()

    def _read(self, day: date, budget: Budget) -> Iterator[pa.RecordBatch]:
        with self.translate_errors(), self._connect() as connection:
            yield from self.fetch_batches(connection, (day, day + timedelta(days=1)), budget)

    def fetch_batches(
        self, connection: Connection, span: tuple[date, date], budget: Budget
    ) -> Iterator[pa.RecordBatch]:
        """The rows of [since, until) in their order."""
        with connection.cursor(name="evergreen_source") as cursor:
            cursor.execute(self._build_query(), span)
            schema = self._read_schema(cursor)
            while rows := cursor.fetchmany(self._spec.fetch_rows):
                batch = self._build_batch(schema, rows)
                budget.spend(self._spec.table, batch.nbytes)
                yield batch

    def compute_digest(self, connection: Connection, span: tuple[date, date]) -> str:
        """What tells the rows of a span from any others: their number, names, types and values in their order."""
        [(rows, values)] = connection.execute(self._build_digest_query(), span).fetchall()
        columns = connection.execute(self._build_query() + sql.SQL(" LIMIT 0"), span).description or ()
        text = json.dumps([[column.name, column.type_code] for column in columns])
        return f"rows={rows}&sha256={values}&columns={hashlib.sha256(text.encode()).hexdigest()}"

    def describe(self, day: date) -> str:
        return f"{self._place}?{self._spec.interval_column}={day}/{day + timedelta(days=1)}&tz=UTC"

    def build_span_uri(self, span: tuple[date, date]) -> str:
        return f"{self._place}?{self._spec.interval_column}={span[0].isoformat()}/{span[1].isoformat()}&tz=UTC"

    @property
    def _place(self) -> str:
        server = conninfo_to_dict(self._dsn)
        where = f"{server.get('host', 'localhost')}:{server.get('port', 5432)}/{server.get('dbname', '')}"
        return f"postgresql://{where}/{self._spec.table}"

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        """A connection in a transaction that sees one moment of the table."""
        with psycopg.connect(self._dsn, **self._build_options()) as connection:
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            milliseconds = str(int(self._spec.statement_timeout_s * 1000))
            connection.execute("SELECT set_config('TimeZone', 'UTC', true)")
            connection.execute("SELECT set_config('statement_timeout', %s, true)", (milliseconds,))
            _register_loaders(connection)
            yield connection

    def _build_options(self) -> dict[str, Any]:
        """A server that vanished is noticed after a minute: idle seconds, then seconds between so many probes."""
        lively = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        return {"connect_timeout": self._spec.connect_timeout_s, "application_name": "evergreen", **lively}

    def _build_query(self) -> sql.Composed:
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

    def _build_digest_query(self) -> sql.Composed:
        """Rows as the text the server sends, which is what they are read from; the alias is no column's name."""
        row = sql.Identifier("evergreen row")
        columns = sql.SQL(", ").join(map(sql.Identifier, self._spec.columns))
        return sql.SQL(
            "SELECT count(*), encode(sha256(coalesce(string_agg(sha256(convert_to({row}::text, 'UTF8')), ''::bytea"
            " ORDER BY {interval}, {id}), ''::bytea)), 'hex') FROM {table} AS {alias}"
            " WHERE {interval} >= %s AND {interval} < %s"
        ).format(
            row=sql.SQL("ROW({})").format(columns) if self._spec.columns else row,
            alias=row,
            table=sql.Identifier(*self._spec.table.split(".")),
            interval=sql.Identifier(self._spec.interval_column),
            id=sql.Identifier(self._id_column),
        )

    @staticmethod
    def _read_schema(cursor: psycopg.ServerCursor[Any]) -> pa.Schema:
        known = {cursor.connection.adapters.types[name].oid: kind for name, kind in ARROW_TYPES.items()}
        return pa.schema(
            [(column.name, known.get(column.type_code, pa.string())) for column in cursor.description or ()]
        )

    def _build_batch(self, schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
        columns = zip(*rows, strict=True)
        arrays = [self._build_array(field, values) for field, values in zip(schema, columns, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _build_array(self, field: pa.Field, values: tuple[Any, ...]) -> pa.Array:
        try:
            return pa.array(values, field.type)
        except (pa.ArrowException, OverflowError) as error:
            if not is_declared(field.name, self._declared):
                log.warning("column %s holds what is no %s; its cells are left out", quote_name(field.name), field.type)
                return pa.nulls(len(values), field.type)
            raise DataRefused(
                f"Column {quote_name(field.name)} of table {self._spec.table} holds what is no {field.type} "
                f"({quote_name(str(error))}); read it through a view that casts it."
            ) from error

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Turns what the server refuses into a sentence of ours."""
        try:
            yield
        except psycopg.Error as error:
            raise _translate_error(error, self._spec, self._place) from error


def _register_loaders(connection: psycopg.Connection[Any]) -> None:
    """Types without a plain Arrow counterpart are left as the text the server sends."""
    for info in connection.adapters.types:
        loader = FloatLoader if info.name == "numeric" else TextLoader
        if info.name == "numeric" or info.name not in ARROW_TYPES:
            connection.adapters.register_loader(info.oid, loader)
        connection.adapters.register_loader(info.array_oid, TextLoader)


def _translate_error(error: psycopg.Error, spec: PostgresSource, place: str) -> EvergreenError:
    cause = " ".join((error.diag.message_primary or str(error)).split())
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        return DataRefused(f"{place}: there is no table {spec.table}; create it, or correct source.table.")
    if isinstance(error, psycopg.errors.UndefinedColumn):
        return DataRefused(f"{place}: {cause}; add it, or correct the manifest.")
    if isinstance(error, psycopg.errors.UndefinedFunction | psycopg.errors.DatatypeMismatch):
        return DataRefused(f"{place}: {spec.interval_column} is no date or timestamp; correct source.interval_column.")
    if _is_access_refusal(error, cause):
        return AccessRefused(
            f"{place} refused us ({cause}); renew the password in the Airflow Connection {CONNECTION}, or grant its "
            "user SELECT on the table."
        )
    if isinstance(error, psycopg.errors.InvalidCatalogName) or re.search(r'database ".*" does not exist', cause):
        return RequestInvalid(f"{place}: {cause}; correct the database of the Airflow Connection {CONNECTION}.")
    if isinstance(error, psycopg.DataError):
        return DataRefused(f"{place}: a value cannot be read ({cause}); read it through a view that leaves it out.")
    return ServiceUnavailable(f"{place} cannot be read now ({cause}); start the server or try again later.")


def _is_access_refusal(error: psycopg.Error, cause: str) -> bool:
    """A refused login carries no code in libpq's answer, only its text."""
    known = psycopg.errors.InsufficientPrivilege | psycopg.errors.InvalidPassword
    refused = ("password authentication failed", "no password supplied", "no pg_hba.conf entry", 'role "')
    return isinstance(error, known) or (error.sqlstate is None and any(text in cause for text in refused))
