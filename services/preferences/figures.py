"""Owns what operators see of the directory beyond its calls."""

from typing import Final

from prometheus_client import Gauge, Histogram

DIRECTORY_VERSION: Final = Gauge(
    "wedsync_directory_version", "The place in the log that the set indexes stand at."
)
DIRECTORY_RECIPIENTS: Final = Gauge("wedsync_directory_recipients", "People in the set indexes.")
INDEX_BUILD_SECONDS: Final = Gauge(
    "wedsync_index_build_seconds", "How long the set indexes took to be read when they were read last."
)
INDEX_APPLY_SECONDS: Final = Histogram(
    "wedsync_index_apply_seconds",
    "How long it took to bring changes of the log into the set indexes, reading included.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
)
