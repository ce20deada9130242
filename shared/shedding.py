"""How large a share of calls is refused, from how long a call waits: the rule alone, without calls or clocks."""

from typing import Final

TICK_S: Final = 0.05
"""How often the share follows the wait."""

TARGET_S: Final = 0.2
"""What a call may wait before it is worked on."""

_PATIENCE_S: Final = 0.5
_LARGEST_SHARE: Final = 0.98
# The share follows the wait by its distance from the target and by its change, both measured in targets; that is PIE's
# rule (RFC 8033). Where three times as many come as are carried, each hundredth that is let in weighs three times as
# much, so steps are parts of what is let in; those of PIE, the same for every load, swing between too many and too few.
_BY_DISTANCE: Final = 0.02
_BY_CHANGE: Final = 0.3
_LEAST_LET_IN: Final = 0.1
_LARGEST_DISTANCE: Final = 5.0
_LARGEST_CHANGE: Final = 2.0
# With hardly any wait the share goes by so much a tick, so that a burst which is over is forgotten in a second.
_EASING: Final = 0.95
_EASED_BELOW_S: Final = TARGET_S / 4


class Shedding:
    """Keeps the wait at its target by the share that is refused; a wait that is soon over refuses nobody."""

    def __init__(self) -> None:
        self.share = 0.0
        """The part of the calls that is refused now."""
        self.wait_s = 0.0
        """What a call waited at the last tick."""
        self._above_since: float | None = None

    def follow(self, now: float, wait_s: float) -> None:
        """A tick: at `now`, in seconds of any clock, a call waits so long."""
        change = (wait_s - self.wait_s) / TARGET_S
        self.wait_s = wait_s
        if wait_s <= TARGET_S:
            self._above_since = None
        elif self._above_since is None:
            self._above_since = now
        # A moment without the processor is no overload.
        is_standing = self._above_since is not None and now - self._above_since >= _PATIENCE_S
        if not self.share and not is_standing:
            return
        distance = min((wait_s - TARGET_S) / TARGET_S, _LARGEST_DISTANCE)
        change = max(-_LARGEST_CHANGE, min(change, _LARGEST_CHANGE))
        step = (_BY_DISTANCE * distance + _BY_CHANGE * change) * max(1 - self.share, _LEAST_LET_IN)
        eased = self.share * _EASING if wait_s < _EASED_BELOW_S else self.share
        self.share = max(0.0, min(eased + step, _LARGEST_SHARE))
