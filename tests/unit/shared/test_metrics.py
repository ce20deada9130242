"""Figures: served over HTTP where settings say, and a taken address is told by its setting."""

import asyncio
import socket
import urllib.request

import pytest

from shared.calls import MethodFigures
from shared.metrics import serve_metrics
from shared.settings import Address, SettingsError


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(address: Address) -> str:
    """The page that Prometheus would read."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        return str(answer.read(), "utf-8")


async def test_calls_are_counted_by_method_and_code() -> None:
    """Each call adds one to its method's figure for its status, and its time to a bucket."""
    address = Address("127.0.0.1", free_port())
    stop = serve_metrics("SENDER_METRICS_LISTEN", address)
    figures = MethodFigures("TestService/Counted")
    figures.count("OK", 0.002)
    figures.count("OK", 0.003)
    figures.count("NOT_FOUND", 0.2)
    page = await asyncio.to_thread(fetch, address)
    stop()
    assert 'wedsync_rpc_seconds_count{code="OK",method="TestService/Counted"} 2.0' in page
    assert 'wedsync_rpc_seconds_count{code="NOT_FOUND",method="TestService/Counted"} 1.0' in page
    assert 'wedsync_rpc_seconds_bucket{code="OK",le="0.0025",method="TestService/Counted"} 1.0' in page


def test_taken_address_is_told_by_its_setting() -> None:
    """Two processes cannot show their figures on one port; the second says which setting to change."""
    address = Address("127.0.0.1", free_port())
    stop = serve_metrics("SENDER_METRICS_LISTEN", address)
    with pytest.raises(SettingsError, match=rf"SENDER_METRICS_LISTEN: cannot listen on {address}"):
        serve_metrics("SENDER_METRICS_LISTEN", address)
    stop()
