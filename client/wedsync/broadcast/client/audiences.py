"""Says who is meant by a broadcast."""

from collections.abc import Iterable

from wedsync.broadcast.v1.common_pb2 import Targeting


def everyone() -> Targeting:
    """All recipients."""
    return Targeting(everyone=True)


def audience(
    *,
    user_ids: Iterable[str] = (),
    roles: Iterable[str] = (),
    tiers: Iterable[str] = (),
    segment_ids: Iterable[str] = (),
    wedding_ids: Iterable[str] = (),
) -> Targeting:
    """Whoever is named by any of the first four; with weddings, only those of them who are on these teams.

    With weddings alone, their teams. At most 1,000 values in a list.
    """
    return Targeting(
        user_ids=_several(user_ids),
        roles=_several(roles),
        tiers=_several(tiers),
        segment_ids=_several(segment_ids),
        wedding_ids=_several(wedding_ids),
    )


def _several(values: Iterable[str]) -> list[str]:
    # A string is a list of letters too, and nobody means that.
    return [values] if isinstance(values, str) else list(values)
