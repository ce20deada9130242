"""How Postgres finds the rows of a statement: the plans of it and of all that it calls, as it was carried out."""

import json
from collections.abc import Iterator
from typing import Any, Final

import asyncpg

Plan = dict[str, Any]

BY_INDEX: Final = ("SET enable_seqscan = off",)
"""As the connection has it that retention removes by."""

_LOOK: Final = (
    "LOAD 'auto_explain'",
    "SET auto_explain.log_min_duration = 0",
    "SET auto_explain.log_nested_statements = on",
    "SET auto_explain.log_analyze = on",
    "SET auto_explain.log_timing = off",
    "SET auto_explain.log_format = json",
    "SET client_min_messages = log",
)
_CONDITIONS: Final = {
    "Index Scan": "Index Cond",
    "Index Only Scan": "Index Cond",
    "Bitmap Heap Scan": "Recheck Cond",
    "Tid Scan": "TID Cond",
}


async def explained(
    admin_url: str, role: str, query: str, *arguments: object, settings: tuple[str, ...] = ()
) -> list[Plan]:
    """The plans under a service's login, once they are the generic ones; what the statement does is rolled back."""
    connection = await asyncpg.connect(admin_url)
    told: list[str] = []
    connection.add_log_listener(lambda _, message: told.append(str(message.message)))
    schema, _, _ = role.rpartition("_")
    for statement in (*_LOOK, f"SET search_path = {schema}", *settings, f"SET ROLE {role}"):
        await connection.execute(statement)
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    await connection.set_type_codec(
        "bit",
        schema="pg_catalog",
        encoder=lambda bits: (len(bits) * 8).to_bytes(4, "big") + bits,
        decoder=bytes,
        format="binary",
    )
    statement = await connection.prepare(query)
    for _ in range(8):
        told.clear()
        transaction = connection.transaction()
        await transaction.start()
        await statement.fetch(*arguments)
        await transaction.rollback()
    await connection.close()
    return [json.loads(each[each.index("{") :])["Plan"] for each in told if "plan:" in each]


async def forget_statistics(connection: asyncpg.Connection, schema: str) -> None:
    """As on a database that has just been filled: Postgres has been told nothing of these tables."""
    await connection.execute(
        "SELECT pg_clear_relation_stats($1, relname) FROM pg_class"
        " WHERE relnamespace = $1::regnamespace AND relkind = 'r'",
        schema,
    )
    await connection.execute(
        "DELETE FROM pg_statistic USING pg_class WHERE starelid = oid AND relnamespace = $1::regnamespace",
        schema,
    )


def nodes(plan: Plan) -> Iterator[Plan]:
    """Every node of a plan."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def scans(found: list[Plan], *tables: str) -> list[Plan]:
    """Every scan of these tables; of all of them when none is named."""
    read = [node for plan in found for node in nodes(plan) if "Relation Name" in node]
    read = [node for node in read if node["Node Type"] != "ModifyTable"]
    return [node for node in read if not tables or node["Relation Name"] in tables]


def assert_by_index(read: list[Plan], *whole: str) -> None:
    """Nothing is read from end to end, not even by an index, but for those that are named as `whole`."""
    assert read
    strays = [
        (node["Node Type"], node["Relation Name"], node.get("Index Name"))
        for node in read
        if _CONDITIONS.get(node["Node Type"]) not in node and node.get("Index Name") not in whole
    ]
    assert strays == []
