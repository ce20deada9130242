"""Prepares audiences of exact sizes in a world of a million: two lists of users, two roles, one tier, and everyone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from uuid import UUID, uuid4

from wedsync.broadcast.v1.common_pb2 import Targeting
from wedsync.broadcast.v1.directory_pb2 import Recipient, UpsertRecipientsRequest, UserType
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceStub

from stack.load import SEED
from stack.world import Person, World

BATCH = 1_000
DENSE_ROLE, DENSE = "bench-dense", range(200_001, 210_001)
HUNDRED_ROLE, HUNDRED_THOUSAND = "bench-hundred-thousand", range(300_001, 400_001)
SCATTERED_TIER, SCATTERED_STEP = "bench-scattered", 100
TEN, THOUSAND = range(500_001, 500_011), range(500_001, 501_001)


@dataclass(frozen=True, slots=True)
class Audience:
    """An audience of the benchmark: how it is targeted, and how the rows of the baseline are chosen."""

    name: str
    size: int
    targeting: Targeting
    word: str
    user_ids: tuple[UUID, ...] = ()


async def prepare(
    directory: DirectoryServiceStub, metadata: tuple[tuple[str, str], ...], size: int
) -> list[Audience]:
    """Gives people of a loaded world the roles and tiers by which they are targeted; answers the audiences."""
    batch: list[Recipient] = []
    by_number: dict[int, UUID] = {}
    for person in World(size, SEED, date.today()).people():  # noqa: DTZ011 - dates play no part in people
        if person.number in THOUSAND:
            by_number[person.number] = person.user_id
        changed = _changed(person)
        if changed is not person:
            batch.append(_entry(changed))
        if len(batch) == BATCH:
            await _upsert(directory, metadata, batch)
            batch = []
    if batch:
        await _upsert(directory, metadata, batch)
    return list(_audiences(by_number, size))


def _audiences(by_number: dict[int, UUID], size: int) -> Iterator[Audience]:
    for name, numbers in (("10", TEN), ("1,000", THOUSAND)):
        users = tuple(by_number[number] for number in numbers)
        yield Audience(name, len(users), Targeting(user_ids=map(str, users)), "", users)
    yield Audience("10,000 dense", len(DENSE), Targeting(roles=[DENSE_ROLE]), DENSE_ROLE)
    yield Audience(
        "10,000 scattered", size // SCATTERED_STEP, Targeting(tiers=[SCATTERED_TIER]), SCATTERED_TIER
    )
    yield Audience("100,000", len(HUNDRED_THOUSAND), Targeting(roles=[HUNDRED_ROLE]), HUNDRED_ROLE)
    yield Audience("1,000,000", size, Targeting(everyone=True), "everyone")


def _changed(person: Person) -> Person:
    if person.number % SCATTERED_STEP == 0:
        person = replace(person, tier=SCATTERED_TIER)
    if person.number in DENSE:
        return replace(person, role=DENSE_ROLE)
    if person.number in HUNDRED_THOUSAND:
        return replace(person, role=HUNDRED_ROLE)
    return person


def _entry(person: Person) -> Recipient:
    return Recipient(
        user_id=str(person.user_id),
        display_name=person.display_name,
        role=person.role,
        user_type=UserType.Value(f"USER_TYPE_{person.user_type.upper()}"),
        tier=person.tier,
        email=person.email or "",
        phone=person.phone or "",
        time_zone=person.time_zone,
    )


async def _upsert(
    directory: DirectoryServiceStub, metadata: tuple[tuple[str, str], ...], batch: list[Recipient]
) -> None:
    request = UpsertRecipientsRequest(request_id=str(uuid4()), recipients=batch)
    await directory.UpsertRecipients(request, metadata=metadata, timeout=60)
