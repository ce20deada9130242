"""Owns who has done what with a broadcast, person by person, for those who may be told."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from wedsync.broadcast.v1 import inbox_pb2
from wedsync.broadcast.v1.audience_pb2 import LookupRecipientsRequest, RecipientNumber
from wedsync.broadcast.v1.audience_pb2_grpc import AudienceServiceStub
from wedsync.broadcast.v1.sender_pb2 import CheckBroadcastAccessRequest, CheckBroadcastAccessResponse
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from services.inbox.domain import EVERYBODY
from services.inbox.messages import optional_time
from services.inbox.store import QUERIES
from services.inbox.work_store import WorkStore
from shared import opaque
from shared.audience import MAX_NUMBER, Audience
from shared.auth import current_identity
from shared.database import Database, Row
from shared.errors import NotFound

_PAGE_SIZE: Final = 100
# So many are looked through at once for those who have not acknowledged.
_TOGETHER: Final = 4_096
_NUMBER_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class _Reach:
    """Whom a broadcast reached, as far as its reader may be told, and those of them who are off its teams by now."""

    visible: Audience
    left: Audience
    cleaned_at: datetime | None


class Readership:
    """Receipts by person. Who may be told is the sender's to say, at each call; names are the directory's."""

    def __init__(
        self, worked: Database, store: WorkStore, sender: SenderServiceStub, audience: AudienceServiceStub
    ) -> None:
        self._worked = worked
        self._store = store
        self._sender = sender
        self._audience = audience

    async def list_receipts(self, request: inbox_pb2.ListReceiptsRequest) -> inbox_pb2.ListReceiptsResponse:
        """A page of people. Raises NotFound for a broadcast that the caller may not see, and InvalidPageToken."""
        broadcast_id = UUID(request.broadcast_id)
        access = await self._access(broadcast_id)
        query = _query(broadcast_id, request.unacknowledged_only)
        after = _read_token(request.page_token, query) if request.page_token else -1
        reach = await self._reach(broadcast_id, access)
        asked = reach.visible - reach.left if request.unacknowledged_only else reach.visible
        size = request.page_size or _PAGE_SIZE
        # One more than is shown says whether there is another page.
        rows = await self._receipts(broadcast_id, asked, after, size + 1, request.unacknowledged_only)
        shown = rows[:size]
        people = await self._people([row["number"] for row in shown])
        return inbox_pb2.ListReceiptsResponse(
            receipts=[_message(row, people.get(row["number"]), reach.left) for row in shown],
            next_page_token=_write_token(shown[-1]["number"], query) if len(rows) > size else "",
            total_count=len(reach.visible),
            acknowledged_count=await self._acknowledged(broadcast_id, reach.visible, access),
            cleaned_time=optional_time(reach.cleaned_at),
        )

    async def _access(self, broadcast_id: UUID) -> CheckBroadcastAccessResponse:
        user_id = current_identity().user_id
        request = CheckBroadcastAccessRequest(
            broadcast_id=str(broadcast_id), user_id=str(user_id) if user_id else ""
        )
        try:
            return await self._sender.CheckBroadcastAccess(request)
        except NotFound as error:
            # Only those who are told of everything learn nothing by it.
            raise (NotFound.or_not_yours() if user_id else NotFound()) from error

    async def _reach(self, broadcast_id: UUID, access: CheckBroadcastAccessResponse) -> _Reach:
        about = await self._worked.fetchrow(QUERIES["find_reached"], broadcast_id)
        if about is None:
            return _Reach(Audience(), Audience(), None)
        members = await self._store.find_members(broadcast_id)
        if about["cleaned_at"] is not None:
            # Of a critical one, those who did something are known for good.
            rows = await self._worked.fetch(QUERIES["list_receipt_owners"], broadcast_id)
            members |= Audience.of(row["recipient_number"] for row in rows)
        wall = [wedding_id for wedding_id in about["wall"] if wedding_id != EVERYBODY]
        teams = {team.wedding_id: team.members for team in await self._store.find_teams(wall)} if wall else {}
        if not access.everybody:
            members &= Audience.union_of(
                teams[UUID(each)] for each in access.wedding_ids if UUID(each) in teams
            )
        left = members - Audience.union_of(teams.values()) if wall else Audience()
        return _Reach(members, left, about["cleaned_at"])

    async def _receipts(
        self, broadcast_id: UUID, asked: Audience, after: int, most: int, unacknowledged_only: bool
    ) -> list[Row]:
        """Up to `most` people in the order of their numbers, beyond one of these."""
        found: list[Row] = []
        while len(found) < most:
            numbers = asked.slice(after + 1, MAX_NUMBER + 1).sample(
                _TOGETHER if unacknowledged_only else most
            )
            if not numbers:
                break
            found += await self._worked.fetch(
                QUERIES["list_receipts"], broadcast_id, numbers, unacknowledged_only, most - len(found)
            )
            after = numbers[-1]
        return found

    async def _acknowledged(
        self, broadcast_id: UUID, visible: Audience, access: CheckBroadcastAccessResponse
    ) -> int:
        among = None if access.everybody else visible.to_list()
        return int(await self._worked.fetchval(QUERIES["count_acknowledged"], broadcast_id, among))

    async def _people(self, numbers: list[int]) -> dict[int, RecipientNumber]:
        if not numbers:
            return {}
        response = await self._audience.LookupRecipients(LookupRecipientsRequest(numbers=numbers))
        return {person.number: person for person in response.recipients}


def _message(row: Row, person: RecipientNumber | None, left: Audience) -> inbox_pb2.PersonReceipt:
    return inbox_pb2.PersonReceipt(
        user_id=person.user_id if person else "",
        display_name=person.display_name if person else "",
        role=person.role if person else "",
        delivered_at=optional_time(row["arrived_at"]),
        read_at=optional_time(row["read_at"]),
        acknowledged_at=optional_time(row["acknowledged_at"]),
        has_left=row["number"] in left,
    )


def _query(broadcast_id: UUID, unacknowledged_only: bool) -> bytes:
    return broadcast_id.bytes + bytes([unacknowledged_only])


def _write_token(number: int, query: bytes) -> str:
    return opaque.write_page_token(number.to_bytes(_NUMBER_BYTES), query)


def _read_token(token: str, query: bytes) -> int:
    place = opaque.read_page_token(token, query)
    number = int.from_bytes(place)
    if len(place) != _NUMBER_BYTES or number > MAX_NUMBER:
        raise opaque.refused_page_token()
    return number
