"""What is read from the tables against an oracle that asks each person's rows: presets, edits, roles and weddings."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from random import Random
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from wedsync.broadcast.v1 import audience_pb2, common_pb2

from shared.audience import Audience
from stack.nats import NatsAccess
from stack.provision import SuiteDatabase
from tests.integration.preferences.inbox import told_inbox
from tests.integration.preferences.site import Answer, Site, preferences_site, some_rules

PEOPLE = 300
WEDDING = UUID(int=1)
TYPE = "feature.released"
PRESET_QUIET = {
    "couple": (time(21), time(9)),
    "coordinator": (time(23), time(6)),
    "florist": (time(22), time(7)),
    "admin": None,
    "drone-pilot": None,
}
CHANNELS = (("in_app",), ("realtime", "in_app"), ("in_app", "email"), ("realtime", "in_app", "push"))
ZONES = ("Europe/Vienna", "America/New_York", "Asia/Kolkata", "Pacific/Auckland", "UTC")
WINDOWS = ((time(22), time(7)), (time(0), time(12)), (time(12), time(0)), (time(6, 30), time(20, 15)))
RULES = [
    some_rules(type=TYPE),
    some_rules(type=TYPE, wedding_id=str(WEDDING)),
    some_rules(type=TYPE, wall_wedding_ids=[str(WEDDING)]),
    some_rules(type="trial.ending", category=common_pb2.CATEGORY_BUSINESS),
    some_rules(type=TYPE, essential=True, priority=common_pb2.PRIORITY_HIGH),
    some_rules(type=TYPE, priority=common_pb2.PRIORITY_CRITICAL, wedding_id=str(WEDDING)),
]


@dataclass(frozen=True, slots=True)
class Edited:
    """A row of preferences."""

    system: bool
    business: bool
    critical_only: bool
    channels: tuple[str, ...]
    quiet: tuple[time, time] | None
    zone: str | None


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of role_settings or wedding_filters."""

    muted: bool
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Person:
    """All rows about one person."""

    number: int
    role: str
    zone: str
    on_team: bool
    is_erased: bool
    edited: Edited | None
    has_reset: bool
    settings: dict[str, Setting]
    wedding_filter: Setting | None

    def expected(self, channel: str, rules: audience_pb2.DeliveryRules, now: datetime) -> str | None:
        """The oracle: what they get, None when they are not meant."""
        has_wall = bool(rules.wedding_id or rules.wall_wedding_ids)
        if self.is_erased or (has_wall and not self.on_team):
            return None
        if rules.priority == common_pb2.PRIORITY_CRITICAL:
            return "pending"
        reason = self._reason(channel, rules, self.wedding_filter if has_wall else None)
        if reason is not None:
            return f"suppressed:{reason}"
        return "held" if channel == "realtime" and self._is_asleep(now) else "pending"

    def _reason(self, channel: str, rules: audience_pb2.DeliveryRules, about: Setting | None) -> str | None:
        edited, setting = self.edited, self.settings.get(self.role) if self.edited else None
        if not (rules.essential and channel == "in_app"):
            category = "system" if rules.category == common_pb2.CATEGORY_SYSTEM else "business"
            if edited and edited.critical_only:
                return "critical_only"
            if edited and not getattr(edited, category):
                return "category_muted"
            if about and about.muted:
                return "wedding_muted"
            if setting and setting.muted and rules.type == TYPE:
                return "type_muted"
        if channel == "in_app" or edited is None:
            return None
        chosen = (about and about.channels) or (setting and setting.channels) or edited.channels
        return None if channel in chosen else "channel_off"

    def _is_asleep(self, now: datetime) -> bool:
        quiet = self.edited.quiet if self.edited else PRESET_QUIET[self.role]
        if quiet is None:
            return False
        wall = now.astimezone(ZoneInfo((self.edited and self.edited.zone) or self.zone)).time()
        start, end = quiet
        return start <= wall < end if start < end else wall >= start or wall < end


def _somebody(number: int, random: Random) -> Person:
    is_edited = random.random() < 0.6
    return Person(
        number,
        random.choice(list(PRESET_QUIET)),
        random.choice(ZONES),
        random.random() < 0.5,
        random.random() < 0.1,
        _edited(random) if is_edited else None,
        not is_edited and random.random() < 0.3,
        {role: _setting(random) for role in PRESET_QUIET if is_edited and random.random() < 0.4},
        _setting(random) if is_edited and random.random() < 0.5 else None,
    )


def _edited(random: Random) -> Edited:
    return Edited(
        random.random() < 0.7,
        random.random() < 0.7,
        random.random() < 0.2,
        random.choice(CHANNELS),
        random.choice([None, *WINDOWS]),
        random.choice([None, *ZONES]),
    )


def _setting(random: Random) -> Setting:
    return Setting(random.random() < 0.4, random.choice([(), (), *CHANNELS]))


async def _write(site: Site, people: Sequence[Person], entry: tuple[str, bytes]) -> None:
    """Put people into the tables as they are now, whatever was there of them, and log it."""
    admin, numbers = site.admin, [each.number for each in people]
    edited = [(each.number, each.edited) for each in people if each.edited]
    async with admin.transaction():
        await admin.execute("SET LOCAL search_path = preferences")
        for table in ("team_members", "wedding_filters", "role_settings", "preferences"):
            statement = f"DELETE FROM {table} WHERE recipient_number = ANY($1)"  # noqa: S608 names of ours
            await admin.execute(statement, numbers)
        await admin.executemany(
            """INSERT INTO recipients
                (number, user_id, display_name, role, user_type, tier, time_zone, erased_at)
            VALUES ($1, gen_random_uuid(), 'Somebody', $2, 'supplier', 'free', $3, $4)
            ON CONFLICT (number) DO UPDATE SET
                role = excluded.role, time_zone = excluded.time_zone, erased_at = excluded.erased_at""",
            [
                (each.number, each.role, each.zone, datetime.now(UTC) if each.is_erased else None)
                for each in people
            ],
        )
        await admin.executemany(
            """INSERT INTO preferences (
                recipient_number, system, business, collaboration, wedding, critical_only, channels,
                quiet_enabled, quiet_start, quiet_end, quiet_time_zone)
            VALUES ($1, $2, $3, true, true, $4, $5::text[]::channel[], $6, $7, $8, $9)""",
            [
                (
                    number,
                    each.system,
                    each.business,
                    each.critical_only,
                    each.channels,
                    each.quiet is not None,
                    *(each.quiet or (time(1), time(2))),
                    each.zone,
                )
                for number, each in edited
            ],
        )
        await admin.executemany(
            "INSERT INTO preferences (recipient_number, version) VALUES ($1, 2)",
            [(each.number,) for each in people if each.has_reset],
        )
        await admin.executemany(
            "INSERT INTO role_settings VALUES ($1, $2, $3, $4::text[]::channel[])",
            [
                (each.number, role, [TYPE] if setting.muted else [], setting.channels)
                for each in people
                for role, setting in each.settings.items()
            ],
        )
        await admin.executemany(
            "INSERT INTO wedding_filters VALUES ($1, $2, $3, $4::text[]::channel[])",
            [
                (each.number, WEDDING, each.wedding_filter.muted, each.wedding_filter.channels)
                for each in people
                if each.wedding_filter
            ],
        )
        await admin.executemany(
            "INSERT INTO team_members VALUES ($1, $2)",
            [(WEDDING, each.number) for each in people if each.on_team],
        )
        await admin.execute(
            "SELECT append_log_many($1, $2)",
            [entry[0], "team", "filters"],
            [entry[1], WEDDING.bytes, WEDDING.bytes],
        )


async def _check(site: Site, people: dict[int, Person]) -> None:
    for rules in RULES:
        answer: Answer = await site.resolve(common_pb2.Targeting(everyone=True), rules)
        now = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=answer.decide_time_ns // 1000)
        for channel in ("realtime", "in_app"):
            expected = {
                number: outcome
                for number, person in people.items()
                if (outcome := person.expected(channel, rules, now)) is not None
            }
            assert expected == answer.outcomes(channel)


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory,
    make_suite: Callable[..., Awaitable[SuiteDatabase]],
    streams: NatsAccess,
) -> AsyncIterator[Site]:
    """A preferences service over tables of its own."""
    database, folder = await make_suite("preferences"), tmp_path_factory.mktemp("settings")
    async with told_inbox() as inbox, preferences_site(folder, database, streams, inbox) as running:
        await running.admin.execute(
            "INSERT INTO preferences.weddings (wedding_id, couple_name, status) VALUES ($1, 'A & B', 'planning')",
            WEDDING,
        )
        await running.admin.execute("SELECT preferences.append_log('weddings', $1)", WEDDING.bytes)
        yield running


@pytest.mark.parametrize("seed", range(3))
async def test_everybody_gets_what_their_own_rows_say(site: Site, seed: int) -> None:
    """After a load, after any number of changes, and after a restart: person by person, on both channels."""
    random = Random(seed)
    people = {number: _somebody(number, random) for number in range(1, PEOPLE + 1)}
    await _write(site, list(people.values()), ("reload", b""))
    await _check(site, people)
    for _ in range(3):
        changed = {number: _somebody(number, random) for number in random.sample(sorted(people), 40)}
        people |= changed
        await _write(site, list(changed.values()), ("recipients", Audience.of(changed).to_bytes()))
        await _check(site, people)
    await site.restart()
    await _check(site, people)
