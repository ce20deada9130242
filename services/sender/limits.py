"""Owns how much a sender may send: product.md's table for people, a configured quota for service accounts."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from services.sender.domain import TYPES, Author, Priority
from shared.errors import QuotaViolation, RateLimited


@dataclass(frozen=True, slots=True)
class Limit:
    """How many broadcasts may be sent in any hour, and how many in any 24 hours."""

    hour: int
    day: int


PEOPLE: Final[Mapping[Priority, Limit]] = {
    Priority.CRITICAL: Limit(5, 20),
    Priority.HIGH: Limit(10, 50),
    Priority.NORMAL: Limit(25, 100),
    Priority.LOW: Limit(50, 200),
}
"""The same for everybody, whatever their role."""

_SERVICE_TIMES: Final = 20
SERVICES: Final[Mapping[Priority, Limit]] = {
    priority: Limit(_SERVICE_TIMES * limit.hour, _SERVICE_TIMES * limit.day)
    for priority, limit in PEOPLE.items()
}
"""For a service account of which the configuration says nothing: enough to begin with, and no flood."""

LARGEST: Final = 1_000_000
"""The most that a configured quota may allow in a window."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What is counted together: a sender's broadcasts of one type and priority about one wedding, or about none.

    Naming weddings in the targeting alone makes a broadcast about none of them: whatever the list, it is one tally.
    """

    author: Author
    type: str
    priority: Priority
    wedding_id: str | None

    @property
    def kind(self) -> str:
        """What is counted, in words that name nobody."""
        return f"{self.priority.slug} {self.type}"


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit and what is used of it; `reset_time` is when the next one is free, None while there is one left."""

    limit: Limit
    hour_used: int
    day_used: int
    reset_time: datetime | None = None

    @property
    def hour_remaining(self) -> int:
        """How many may be sent until one that was sent is more than an hour ago."""
        return max(0, self.limit.hour - self.hour_used)

    @property
    def day_remaining(self) -> int:
        """How many may be sent until one that was sent is more than 24 hours ago."""
        return max(0, self.limit.day - self.day_used)

    def exhausted(self) -> Iterator[str]:
        """The limits that are used up, in words."""
        if not self.hour_remaining:
            yield f"{self.limit.hour:,} in any hour"
        if not self.day_remaining:
            yield f"{self.limit.day:,} in any 24 hours"


@dataclass(frozen=True, slots=True)
class Standing:
    """A quota as it stood at a moment of the database's clock.

    When nothing is left, `request_ids` are those of what was sent in the 24 hours before, 16 bytes each, in order.
    """

    quota: Quota
    counted_at: datetime
    request_ids: bytes = b""

    @property
    def retry_after_s(self) -> float:
        """How long after that moment the next one is free; 0 while there is one left."""
        reset_time = self.quota.reset_time
        return (reset_time - self.counted_at).total_seconds() if reset_time else 0.0


def rate_limited(tally: Tally, quota: Quota, retry_after_s: float) -> RateLimited:
    """The refusal of a send by a quota of which nothing is left."""
    if quota.reset_time is None:
        raise ValueError(f"there is some left of {quota}")
    exhausted = list(quota.exhausted())
    about = " about this wedding" if tally.wedding_id else ""
    return RateLimited(
        f"The limit of {tally.kind}{about}, {' and '.join(exhausted)}, is used up until {_spoken(quota.reset_time)}.",
        quota=[QuotaViolation(tally.kind + about, each) for each in exhausted],
        retry_after_s=max(0.0, retry_after_s),
        metadata={
            "reset_time": quota.reset_time.isoformat().replace("+00:00", "Z"),
            "hour_limit": str(quota.limit.hour),
            "hour_remaining": str(quota.hour_remaining),
            "day_limit": str(quota.limit.day),
            "day_remaining": str(quota.day_remaining),
        },
    )


def _spoken(moment: datetime) -> str:
    """To the second, and not before it."""
    return f"{moment + timedelta(microseconds=999_999):%Y-%m-%d %H:%M:%S} UTC"


_ANY: Final = "*"
_ENTRY: Final = re.compile(
    r"(?P<account>[^\s;=]+):(?P<type>[a-z.]+|[*])(?:/(?P<priority>[a-z]+))?=(?P<hour>[0-9]+),(?P<day>[0-9]+)"
)
_Key = tuple[str, str, Priority | None]


@dataclass(frozen=True, slots=True)
class Limits:
    """Everybody's limits. `accounts` has what is configured, by account and type (or `*`) and priority (or None)."""

    accounts: Mapping[_Key, Limit]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `billing:payment.required/high=1000,5000; billing:*=200,800`; ValueError says what is wrong.

        An entry is an account, a type or `*`, perhaps a priority, and how many in an hour and in 24 hours. The account
        may be `*` as well, for all others. The entry that says most decides: by account first, then by type.
        """
        accounts: dict[_Key, Limit] = {}
        for entry in filter(None, map(str.strip, text.split(";"))):
            key, limit = _parse_entry(entry)
            if key in accounts:
                raise ValueError(f"{entry!r} says again what an entry before it says")
            accounts[key] = limit
        return cls(accounts)

    def of(self, tally: Tally) -> Limit:
        """How much of this may be sent."""
        if not tally.author.is_service:
            return PEOPLE[tally.priority]
        for account in (tally.author.name, _ANY):
            for broadcast_type in (tally.type, _ANY):
                for priority in (tally.priority, None):
                    limit = self.accounts.get((account, broadcast_type, priority))
                    if limit is not None:
                        return limit
        return SERVICES[tally.priority]


def _parse_entry(entry: str) -> tuple[_Key, Limit]:
    parts = _ENTRY.fullmatch(entry)
    if parts is None:
        raise ValueError(f"{entry!r} is not like billing:payment.required/high=1000,5000")
    if parts["type"] != _ANY and parts["type"] not in TYPES:
        raise ValueError(f"{entry!r} names {parts['type']}, which is not a broadcast type")
    word = parts["priority"]
    priority = next((each for each in Priority if each.slug == word), None)
    if word is not None and priority is None:
        raise ValueError(f"{entry!r} names {word}, which is not a priority")
    limit = Limit(int(parts["hour"]), int(parts["day"]))
    if not 1 <= limit.hour <= limit.day <= LARGEST:
        raise ValueError(
            f"{entry!r} must allow at least 1 in an hour, as many in 24, and {LARGEST:,} at most"
        )
    return (parts["account"], parts["type"], priority), limit
