"""A suite that answers as a test says."""

from collections.abc import AsyncIterator

import pytest

from tests.unit.client.suite import Suite, started


@pytest.fixture
async def suite() -> AsyncIterator[Suite]:
    """One of its own for each test."""
    async with started() as suite:
        yield suite
