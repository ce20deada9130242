"""Makes up a wedding platform: people, weddings with their teams, and preferences that differ.

The same seed gives the same world. Everything is fiction: addresses are at example.com, and phone numbers come from
ranges that are kept for drama.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, time, timedelta
from random import Random
from uuid import NAMESPACE_URL, UUID, uuid5

from stack import world_names as names

PEOPLE_PER_WEDDING = 20
MINIMUM_RECIPIENTS = 100
EDITED_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Person:
    """One recipient. `number` counts from 1 in the order of creation."""

    number: int
    user_id: UUID
    display_name: str
    role: str
    user_type: str
    tier: str
    email: str | None
    phone: str | None
    time_zone: str


@dataclass(frozen=True, slots=True)
class Wedding:
    """One wedding; `team` holds recipient numbers, the couple first."""

    wedding_id: UUID
    couple_name: str
    wedding_date: date
    status: str
    time_zone: str
    team: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EditedPreferences:
    """What one person has set for themselves; `quiet_start` and `quiet_end` are wall-clock time in `quiet_zone`."""

    number: int
    system: bool
    business: bool
    collaboration: bool
    wedding: bool
    critical_only: bool
    channels: tuple[str, ...]
    quiet_enabled: bool
    quiet_start: time
    quiet_end: time
    quiet_zone: str


def demo_id(name: str) -> UUID:
    """The well-known id of a demo person or wedding, such as "admin" or "wedding-1": the same in every world."""
    return uuid5(NAMESPACE_URL, f"urn:wedsync:demo:{name}")


@dataclass(frozen=True, slots=True)
class Cast:
    """The people of the tour, who open every world in this order and make up the team of the first wedding."""

    name: str
    display_name: str
    role: str
    user_type: str
    tier: str
    time_zone: str


CAST = (
    Cast("admin", "Ada Lindqvist", "admin", "staff", "enterprise", "Europe/Stockholm"),
    Cast("coordinator", "Nadia Haddad", "coordinator", "supplier", "professional", "Europe/Vienna"),
    Cast("couple-amara", "Amara Okafor", "couple", "couple", "free", "Europe/Vienna"),
    Cast("couple-jonas", "Jonas Brandt", "couple", "couple", "free", "Europe/Vienna"),
    Cast("photographer", "Petra Novak", "photographer", "supplier", "professional", "Europe/Vienna"),
    Cast("florist", "Fleur Dubois", "florist", "supplier", "starter", "Europe/Paris"),
    Cast("venue", "Schloss Lindenau", "venue", "supplier", "enterprise", "Europe/Vienna"),
    Cast("outsider", "Olu Adeyemi", "coordinator", "supplier", "professional", "Africa/Lagos"),
    Cast("approver", "Berit Solheim", "admin", "staff", "enterprise", "Europe/Oslo"),
)
FIRST_TEAM = (3, 4, 2, 5, 6, 7)


class World:
    """A platform of `recipients` people, about one wedding for every twenty of them, as of `today`.

    People are numbered from 1. Iterating twice gives the same twice.
    """

    def __init__(self, recipients: int, seed: int, today: date) -> None:
        if recipients < MINIMUM_RECIPIENTS:
            raise ValueError(f"recipients: at least {MINIMUM_RECIPIENTS} make a world, not {recipients}")
        self.recipients = recipients
        self.today = today
        self._seed = seed
        random = Random(f"{seed}:roles")
        extras = recipients - len(CAST)
        couples = 2 * (recipients // PEOPLE_PER_WEDDING - 1)
        roles = ["couple"] * couples
        roles += random.choices(names.ROLES, names.ROLE_WEIGHTS, k=extras - couples)
        random.shuffle(roles)
        self._roles = [member.role for member in CAST] + roles
        self._zones = [member.time_zone for member in CAST]
        self._zones += random.choices(names.ZONES, names.ZONE_WEIGHTS, k=extras)

    def people(self) -> Iterator[Person]:
        """All people by number."""
        random = Random(f"{self._seed}:people")
        for number, member in enumerate(CAST, start=1):
            yield Person(
                number,
                demo_id(member.name),
                member.display_name,
                member.role,
                member.user_type,
                member.tier,
                f"{member.name}@example.com",
                f"+120255501{number:02d}",
                member.time_zone,
            )
        for number in range(len(CAST) + 1, self.recipients + 1):
            yield self._person(number, random)

    def _person(self, number: int, random: Random) -> Person:
        role = self._roles[number - 1]
        first, last = random.choice(names.FIRST_NAMES), random.choice(names.LAST_NAMES)
        business = names.BUSINESS_NAMES.get(role)
        draw = random.random()
        return Person(
            number,
            UUID(int=random.getrandbits(128), version=4),
            f"{last} {random.choice(business)}" if business and draw < 0.5 else f"{first} {last}",
            role,
            names.USER_TYPES.get(role, "supplier"),
            _tier(role, random),
            f"{first}.{last}.{number}@example.com".lower().replace(" ", "") if draw < 0.97 else None,
            f"+1555{number:07d}" if draw < 0.7 else None,
            self._zones[number - 1],
        )

    def weddings(self) -> Iterator[Wedding]:
        """All weddings; the first is the one of the tour."""
        random = Random(f"{self._seed}:weddings")
        yield Wedding(
            demo_id("wedding-1"),
            "Amara & Jonas",
            self.today + timedelta(days=40),
            "confirmed",
            "Europe/Vienna",
            FIRST_TEAM,
        )
        pools = self._suppliers_by_region()
        couples = [n for n in range(len(CAST) + 1, self.recipients + 1) if self._roles[n - 1] == "couple"]
        for one, other in zip(couples[::2], couples[1::2], strict=True):
            yield self._wedding(one, other, pools, random)

    def _wedding(
        self, one: int, other: int, pools: dict[tuple[str, str], list[int]], random: Random
    ) -> Wedding:
        zone = self._zones[one - 1]
        region = zone.partition("/")[0]
        team = [one, other]
        for role, share in names.TEAM_SHARES:
            pool = pools.get((region, role)) or pools.get(("Europe", role))
            if pool and random.random() < share:
                team.append(random.choice(pool))
        days = random.randint(-60, 365)
        return Wedding(
            UUID(int=random.getrandbits(128), version=4),
            f"{random.choice(names.FIRST_NAMES)} & {random.choice(names.FIRST_NAMES)}",
            self.today + timedelta(days=days),
            _status(days, random),
            zone,
            tuple(dict.fromkeys(team)),
        )

    def _suppliers_by_region(self) -> dict[tuple[str, str], list[int]]:
        pools: dict[tuple[str, str], list[int]] = {}
        for number, (role, zone) in enumerate(zip(self._roles, self._zones, strict=True), start=1):
            if role not in ("couple", "admin") and number > len(CAST):
                pools.setdefault((zone.partition("/")[0], role), []).append(number)
        return pools

    def edited_preferences(self) -> Iterator[EditedPreferences]:
        """The settings of about a quarter of the people; the people of the tour have none, so their presets hold."""
        random = Random(f"{self._seed}:preferences")
        for number in range(len(CAST) + 1, self.recipients + 1):
            if random.random() < EDITED_SHARE:
                yield self._preferences(number, random)

    def _preferences(self, number: int, random: Random) -> EditedPreferences:
        start, end = random.choice(names.QUIET_WINDOWS)
        return EditedPreferences(
            number,
            system=random.random() < 0.9,
            business=random.random() < 0.7,
            collaboration=random.random() < 0.95,
            wedding=random.random() < 0.97,
            critical_only=random.random() < 0.03,
            channels=random.choice(names.CHANNEL_CHOICES),
            quiet_enabled=random.random() < 0.75,
            quiet_start=start,
            quiet_end=end,
            quiet_zone=self._zones[number - 1],
        )


def _tier(role: str, random: Random) -> str:
    if role == "couple":
        return "free"
    if role == "admin":
        return "enterprise"
    return random.choices(names.TIERS, names.TIER_WEIGHTS)[0]


def _status(days: int, random: Random) -> str:
    if random.random() < 0.03:
        return "cancelled"
    if days < 0:
        return "completed"
    return "confirmed" if days < 180 or random.random() < 0.3 else "planning"
