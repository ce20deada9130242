"""The three servers from wheels: up, behind passwords, on loopback."""

from collections.abc import Callable

import asyncpg
import nats
import nats.aio.client
import nats.errors
import pytest
import redis.asyncio
import redis.exceptions

from shared.optional_redis import OptionalRedis
from stack.nats import NatsAccess


async def test_postgres_serves_and_is_durable(postgres: str) -> None:
    """The server answers its administrator and acknowledges a commit only once it is on disk."""
    connection = await asyncpg.connect(postgres)
    try:
        settings = [await connection.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit")]
    finally:
        await connection.close()
    assert settings == ["on", "on"]


async def test_postgres_refuses_a_wrong_password(postgres: str) -> None:
    """Being on the same machine is not enough to be the administrator."""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres, password="wrong")


async def test_each_database_is_fresh(make_database: Callable[[str], str]) -> None:
    """A table made in one test database is not in the next."""
    first = await asyncpg.connect(make_database("one"))
    await first.execute("CREATE TABLE seen (n int)")
    await first.close()
    second = await asyncpg.connect(make_database("one"))
    assert await second.fetchval("SELECT to_regclass('seen')") is None
    await second.close()


async def test_nats_has_jetstream_for_the_provisioner(nats_server: NatsAccess) -> None:
    """The provisioner may make a stream and take it away."""
    client = await nats.connect(nats_server.url_for("provisioner"), inbox_prefix="_INBOX_provisioner")
    stream = await client.jetstream().add_stream(name="PROBE", subjects=["probe"])
    assert stream.config.name == "PROBE"
    await client.jetstream().delete_stream("PROBE")
    await client.close()


async def test_nats_refuses_strangers(nats_server: NatsAccess) -> None:
    """Without a login nobody gets in."""
    stranger = nats.aio.client.Client()
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await stranger.connect(nats_server.url, allow_reconnect=False)
    await stranger.close()


async def test_valkey_serves_those_who_know_the_password(valkey_server: str) -> None:
    """The URL lets in; the same address without its password does not."""
    async with redis.asyncio.from_url(valkey_server) as client:
        assert await client.ping()
    async with redis.asyncio.from_url(valkey_server, password=None, username=None) as stranger:
        stranger.connection_pool.connection_kwargs.pop("password")
        with pytest.raises(redis.exceptions.AuthenticationError):
            await stranger.ping()


async def test_an_address_that_asks_for_tls_is_not_served_without(valkey_server: str) -> None:
    """The server of the tests has none: nothing is sent to it, instead of the password in the clear."""
    client = OptionalRedis.open(valkey_server.replace("redis://", "rediss://", 1))
    with pytest.raises((redis.exceptions.RedisError, TimeoutError)):
        await client.check()
    await client.close()
