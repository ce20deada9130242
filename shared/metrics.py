"""The figures that Prometheus reads from a process, and the address on which it reads them."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from shared.settings import Address, SettingsError

_RPC_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

RPC_SECONDS = Histogram(
    "wedsync_rpc_seconds", "Calls: how many and how long, from a call's request to its status.", ["method", "code"],
    buckets=_RPC_BUCKETS_S,
)  # fmt: skip
RPC_OPEN = Gauge("wedsync_rpc_open", "Calls and streams open now.", ["kind"])
RPC_REFUSED = Counter(
    "wedsync_rpc_refused", "Calls and streams that were refused unread because there was no room.", ["kind"]
)
RPC_SHED_SHARE = Gauge("wedsync_rpc_shed_share", "The part of the calls from outside that is refused now.")
REDIS_CALLS = Counter("wedsync_redis_calls", "Calls of Redis by what came of them.", ["outcome"])
DEPENDENCY_UP = Gauge(
    "wedsync_dependency_up", "Whether a dependency answered its last check.", ["dependency"]
)


def serve_metrics(variable: str, address: Address) -> Callable[[], None]:
    """Serves the figures over HTTP from a thread of its own; answers the function that stops it.

    `variable` is the setting that `address` came from; SettingsError names it when the address cannot be had.
    """
    try:
        server, thread = start_http_server(address.port, address.host)
    except OSError as error:
        raise SettingsError(f"{variable}: cannot listen on {address}: {error.strerror}.") from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
