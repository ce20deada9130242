"""How a process that serves is set up."""

import gc

from shared.server import settle_memory


def test_what_is_there_when_it_serves_is_not_looked_through_again() -> None:
    """Objects from before are the collector's no more; what comes later is."""
    thresholds, kept = gc.get_threshold(), [[]]
    try:
        settle_memory()
        frozen, later = gc.get_freeze_count(), [[]]
        assert frozen > 0
        assert not any(each is kept for each in gc.get_objects())
        assert any(each is later for each in gc.get_objects())
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
