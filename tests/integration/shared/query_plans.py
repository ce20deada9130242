"""How Postgres goes about a query and all that it calls, as it tells it by itself."""

import json
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from stack.provision import SuiteDatabase

Plan = dict[str, Any]

BY_INDEX: Final = {"enable_seqscan": "off"}
"""The setting of the connection that retention removes by."""

_LOOK: Final = (
    "LOAD 'auto_explain'",
    "SET auto_explain.log_min_duration = 0",
    "SET auto_explain.log_nested_statements = on",
    "SET auto_explain.log_analyze = on",
    "SET auto_explain.log_timing = off",
    "SET auto_explain.log_format = json",
    "SET client_min_messages = log",
)
# Enough that a plan which is made once for all values is made.
_TIMES: Final = 8


async def plans(
    url: str,
    schema: str,
    role: str,
    query: str,
    *arguments: object,
    settings: Mapping[str, object] | None = None,
) -> list[Plan]:
    """The plans of a query and all that it calls, as they are once it was asked a few times; nothing of it is kept.

    `settings` are those of its transaction, for what is asked in a transaction that names somebody.
    """
    connection = await asyncpg.connect(url)
    told: list[str] = []
    connection.add_log_listener(lambda _, message: told.append(str(message.message)))
    for statement in (*_LOOK, f"SET search_path = {schema}", f"SET ROLE {role}"):
        await connection.execute(statement)
    await _set_codecs(connection)
    statement = await connection.prepare(query)
    for _ in range(_TIMES):
        told.clear()
        transaction = connection.transaction()
        await transaction.start()
        for name, value in (settings or {}).items():
            await connection.execute("SELECT set_config($1, $2, true)", name, str(value))
        await statement.fetch(*arguments)
        await transaction.rollback()
    await connection.close()
    return [json.loads(each[each.index("{") :])["Plan"] for each in told if "plan:" in each]


async def forget_statistics(admin: asyncpg.Connection, schema: str) -> None:
    """As on a database that has just been filled."""
    await admin.execute(
        "SELECT pg_clear_relation_stats($1, relname) FROM pg_class "
        "WHERE relnamespace = $1::regnamespace AND relkind = 'r'",
        schema,
    )
    await admin.execute(
        "DELETE FROM pg_statistic USING pg_class WHERE starelid = oid AND relnamespace = $1::regnamespace",
        schema,
    )


@dataclass(frozen=True, slots=True)
class Filled:
    """The tables of a service that has worked for a while."""

    suite: SuiteDatabase
    schema: str
    admin: asyncpg.Connection

    async def plans(self, login: str, query: str, *arguments: object, **settings: object) -> list[Plan]:
        """The plans of a query as the service's `api` or `worker`; settings are named without their `app.`."""
        named = {f"app.{name}": value for name, value in settings.items()}
        role = f"{self.schema}_{login}"
        return await plans(self.suite.admin_url, self.schema, role, query, *arguments, settings=named)

    async def know(self, *, told: bool) -> None:
        """Has the planner know these tables, or nothing of them, as on a database that has just been filled."""
        if told:
            await self.admin.execute("VACUUM ANALYZE")
        else:
            await forget_statistics(self.admin, self.schema)


@asynccontextmanager
async def filled(suite: SuiteDatabase, schema: str, fill: str) -> AsyncIterator[Filled]:
    """A service's tables with what these statements put into them."""
    admin = await asyncpg.connect(suite.admin_url, server_settings={"search_path": schema})
    await admin.execute(fill)
    yield Filled(suite, schema, admin)
    await admin.close()


def nodes(plan: Plan) -> Iterator[Plan]:
    """Every node of a plan."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def scans(found: list[Plan], *tables: str) -> list[Plan]:
    """Every scan of some tables."""
    read = [node for plan in found for node in nodes(plan) if node.get("Relation Name") in tables]
    return [node for node in read if node["Node Type"] != "ModifyTable"]


def indexes(found: list[Plan], table: str) -> set[str]:
    """The names of all indexes that are read whose names begin with the table's, as bitmaps too."""
    names = {str(node.get("Index Name", "")) for plan in found for node in nodes(plan)}
    return {name for name in names if name.startswith(f"{table}_")}


def walked(found: list[Plan]) -> dict[str, int]:
    """The indexes that were read, each with how many rows were looked at; those where nothing was are left out."""
    looked: dict[str, int] = {}
    for node in (node for plan in found for node in nodes(plan)):
        assert node["Node Type"] != "Seq Scan"
        if "Index Name" in node:
            rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            looked[node["Index Name"]] = looked.get(node["Index Name"], 0) + round(rows)
    return {index: rows for index, rows in looked.items() if rows}


def rows_read(found: list[Plan], *tables: str) -> int:
    """How many rows of these were looked at, with those that were left out afterwards."""
    return sum(
        round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in scans(found, *tables)
    )


def assert_only_by_index(found: list[Plan], *tables: str, partial: Collection[str] = ()) -> None:
    """Nothing reads one of these from end to end, not even by an index, unless by those of a `partial` few rows; and
    one of them is read.
    """
    read = scans(found, *tables)
    assert read
    by_index = {
        "Index Scan": "Index Cond",
        "Index Only Scan": "Index Cond",
        "Bitmap Heap Scan": "Recheck Cond",
        "Tid Scan": "TID Cond",
    }
    assert [
        node
        for node in read
        if by_index.get(node["Node Type"]) not in node and node.get("Index Name") not in partial
    ] == []


async def _set_codecs(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    await connection.set_type_codec(
        "bit",
        schema="pg_catalog",
        encoder=lambda bits: (len(bits) * 8).to_bytes(4, "big") + bits,
        decoder=bytes,
        format="binary",
    )
