"""Makes the schemas that the tests of shared mechanism work in, as migrations make a service's."""

from pathlib import Path

import asyncpg

SQL = Path(__file__).parents[3] / "shared" / "sql"


async def make_schema(connection: asyncpg.Connection, service: str, *templates: str) -> None:
    """A fresh schema `service` of the role `<service>_owner`, with what these templates of shared/sql make."""
    await connection.execute(f"""
        DROP SCHEMA IF EXISTS {service} CASCADE;
        DO $$ BEGIN CREATE ROLE {service}_owner NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        CREATE SCHEMA {service} AUTHORIZATION {service}_owner;
    """)
    async with connection.transaction():
        await connection.execute(f"SET LOCAL ROLE {service}_owner; SET LOCAL search_path = {service}")
        for template in templates:
            await connection.execute((SQL / template).read_text(encoding="utf-8"))
