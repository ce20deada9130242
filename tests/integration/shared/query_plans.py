"""How Postgres goes about a query and all that it calls, as it tells it by itself."""

import json
from collections.abc import Iterator
from typing import Any, Final

import asyncpg

Plan = dict[str, Any]
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


async def plans(url: str, schema: str, role: str, query: str, *arguments: object) -> list[Plan]:
    """The plans of a query and all that it calls, as they are once it was asked a few times; nothing of it is kept."""
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


def nodes(plan: Plan) -> Iterator[Plan]:
    """Every node of a plan."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def scans(found: list[Plan], *tables: str) -> list[Plan]:
    """Every scan of some tables."""
    read = [node for plan in found for node in nodes(plan) if node.get("Relation Name") in tables]
    return [node for node in read if node["Node Type"] != "ModifyTable"]


def indexes_of(found: list[Plan], *tables: str) -> set[str]:
    """The indexes by which some tables are read, also those that make up a bitmap first."""
    return {
        node["Index Name"] for scan in scans(found, *tables) for node in nodes(scan) if "Index Name" in node
    }


def walked(found: list[Plan]) -> dict[str, int]:
    """The indexes that were read, each with how many rows were looked at; those where nothing was are left out."""
    looked: dict[str, int] = {}
    for node in (node for plan in found for node in nodes(plan)):
        assert node["Node Type"] != "Seq Scan"
        if "Index Name" in node:
            rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            looked[node["Index Name"]] = looked.get(node["Index Name"], 0) + round(rows)
    return {index: rows for index, rows in looked.items() if rows}


def assert_only_by_index(found: list[Plan], *tables: str) -> None:
    """Nothing reads one of these from end to end, not even by an index; and one of them is read."""
    read = scans(found, *tables)
    assert read
    by_index = {
        "Index Scan": "Index Cond",
        "Index Only Scan": "Index Cond",
        "Bitmap Heap Scan": "Recheck Cond",
    }
    assert [node for node in read if by_index.get(node["Node Type"]) not in node] == []


async def _set_codecs(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    await connection.set_type_codec(
        "bit",
        schema="pg_catalog",
        encoder=lambda bits: (len(bits) * 8).to_bytes(4, "big") + bits,
        decoder=bytes,
        format="binary",
    )
