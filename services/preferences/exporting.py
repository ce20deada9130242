"""Owns telling a person all that is kept about them: what is here, then what each other service answers, by pages."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final, Protocol
from uuid import UUID

from wedsync.broadcast.v1 import directory_pb2, dispatcher_pb2, inbox_pb2, sender_pb2
from wedsync.broadcast.v1.common_pb2 import ExportedRecord
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from services.preferences.directory import KnownPerson, Reach
from services.preferences.erasing import require_reach
from services.preferences.presets import PersonalPreferences
from services.preferences.privacy_store import RecordStore
from services.preferences.store import PersonalStore
from shared.database import Row
from shared.errors import NotFound
from shared.exported import SCHEMA, ExportPart, export_page, exported

_HERE: Final = "preferences"


class _Answer(Protocol):
    """A page of another service."""

    @property
    def records(self) -> Iterable[ExportedRecord]: ...

    @property
    def next_page_token(self) -> str: ...


class Kept:
    """What each service keeps about a person."""

    def __init__(
        self,
        personal: PersonalStore,
        records: RecordStore,
        inbox: InboxServiceStub,
        sender: SenderServiceStub,
        dispatcher: DispatcherServiceStub,
    ) -> None:
        self._personal = personal
        self._records = records
        self._inbox = inbox
        self._sender = sender
        self._dispatcher = dispatcher

    async def find(self, user_id: UUID) -> KnownPerson:
        """Somebody who is known and not erased. Raises NotFound."""
        known = await self._personal.find_person(None, Reach.EVERYONE, user_id)
        if known is None:
            raise NotFound("There is no such recipient, or it is not yours to see.")
        return known

    async def here(self, known: KnownPerson, place: str) -> ExportPart:
        """All of it that is kept here."""
        user_id = known.person.user_id
        found = await self._personal.find_preferences(known.number)
        if found is None:
            raise NotFound("There is no such recipient, or it is not yours to see.")
        return ExportPart(
            [
                _entry(known),
                *_settings(found[0]),
                *(_team(each) for each in await self._personal.list_weddings(known.number)),
                *(_event(row) for row in await self._records.list_audit_events(user_id)),
                *(_call(row) for row in await self._records.list_answers(user_id)),
            ]
        )

    async def in_inbox(self, known: KnownPerson, place: str) -> ExportPart:
        """A page of the inbox's."""
        request = inbox_pb2.ExportInboxRequest(
            user_id=str(known.person.user_id), recipient_number=known.number, page_token=place
        )
        return _part(await self._inbox.ExportInbox(request))

    async def at_sender(self, known: KnownPerson, place: str) -> ExportPart:
        """A page of the sender's."""
        request = sender_pb2.ExportPersonRequest(user_id=str(known.person.user_id), page_token=place)
        return _part(await self._sender.ExportPerson(request))

    async def at_dispatcher(self, known: KnownPerson, place: str) -> ExportPart:
        """A page of the dispatcher's."""
        request = dispatcher_pb2.ExportDeliveriesRequest(recipient_number=known.number, page_token=place)
        return _part(await self._dispatcher.ExportDeliveries(request))


class Exporting:
    """What ExportRecipient does once the edge has let a call in."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    async def export(
        self, request: directory_pb2.ExportRecipientRequest, reach: Reach
    ) -> directory_pb2.ExportRecipientResponse:
        """A page of all that is kept about a person. Raises NotFound, InvalidPageToken, DependencyUnavailable."""
        user_id = UUID(request.user_id)
        require_reach(user_id, reach)
        known = await self._kept.find(user_id)
        parts = {
            _HERE: partial(self._kept.here, known),
            "inbox": partial(self._kept.in_inbox, known),
            "sender": partial(self._kept.at_sender, known),
            "dispatcher": partial(self._kept.at_dispatcher, known),
        }
        page = await export_page(parts, request.page_token, user_id.bytes)
        return directory_pb2.ExportRecipientResponse(
            records=page.records, next_page_token=page.next_page_token, schema=SCHEMA
        )


def _part(answer: _Answer) -> ExportPart:
    return ExportPart(list(answer.records), answer.next_page_token)


def _entry(known: KnownPerson) -> ExportedRecord:
    person = known.person
    return exported(
        _HERE,
        "recipient",
        {
            "user_id": person.user_id,
            "number": known.number,
            "display_name": person.display_name,
            "role": person.role,
            "user_type": person.user_type,
            "tier": person.tier,
            "email": person.email,
            "phone": person.phone,
            "time_zone": person.time_zone,
            "update_time": known.update_time,
        },
    )


def _settings(personal: PersonalPreferences) -> Iterator[ExportedRecord]:
    """What they have edited, and else what holds for their role."""
    values, quiet = personal.values, personal.values.quiet_hours
    yield exported(
        _HERE,
        "preferences",
        {
            "edited": personal.is_edited,
            "update_time": personal.update_time,
            "categories": values.categories,
            "critical_only": values.critical_only,
            "channels": values.channels,
            "quiet_enabled": quiet.enabled,
            "quiet_start": quiet.start,
            "quiet_end": quiet.end,
            "quiet_time_zone": quiet.time_zone,
        },
    )
    for setting in values.role_settings:
        yield exported(
            _HERE,
            "role_setting",
            {"role": setting.role, "muted_types": setting.muted_types, "channels": setting.channels},
        )
    for each in values.wedding_filters:
        yield exported(
            _HERE,
            "wedding_filter",
            {"wedding_id": each.wedding_id, "muted": each.muted, "channels": each.channels},
        )


def _team(wedding_id: UUID) -> ExportedRecord:
    return exported(_HERE, "team_membership", {"wedding_id": wedding_id})


def _event(row: Row) -> ExportedRecord:
    keys = ("at", "action", "by_you", "about_you", "wedding_id", "segment_id", "role_before", "role_after")
    return exported(_HERE, "audit_event", {key: row[key] for key in keys})


def _call(row: Row) -> ExportedRecord:
    return exported(_HERE, "remembered_call", {"method": row["method"], "at": row["at"]})
