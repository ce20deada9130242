"""The gRPC edge of DirectoryService, and who may call what of it."""

from typing import Final
from uuid import UUID

from typing_extensions import override
from wedsync.broadcast.v1 import directory_pb2
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceServicer

from services.preferences.directory import ADMIN, COORDINATOR, Reach
from services.preferences.directory_reads import DirectoryReads
from services.preferences.directory_writes import DirectoryWrites
from services.preferences.erasing import Erasing
from services.preferences.exporting import Exporting
from services.preferences.messages import recipient_message
from services.preferences.segment_calls import Segments
from shared.auth import current_identity, current_role
from shared.cleaning import Cleaner
from shared.rights import Right, any_person, roles, scopes

READ_SCOPE: Final = "directory.read"
WRITE_SCOPE: Final = "directory.write"
ADMIN_SCOPE: Final = "directory.admin"

_WRITERS: Final = scopes(WRITE_SCOPE)
_SEGMENT_READERS: Final = roles(ADMIN, COORDINATOR) | scopes(READ_SCOPE)
_SEGMENT_WRITERS: Final = roles(ADMIN) | scopes(WRITE_SCOPE)

RIGHTS: Final[dict[str, Right]] = {
    "UpsertRecipients": _WRITERS,
    "UpsertWeddings": _WRITERS,
    "SetWeddingTeam": _WRITERS,
    # The roles are named to be looked up: they decide whom a person may see.
    "GetRecipient": any_person() | roles(ADMIN, COORDINATOR) | scopes(READ_SCOPE, WRITE_SCOPE),
    "RegisterPushSubscription": any_person(),
    "DeletePushSubscription": any_person(),
    "CreateSegment": _SEGMENT_WRITERS,
    "UpdateSegment": _SEGMENT_WRITERS,
    "DeleteSegment": _SEGMENT_WRITERS,
    "GetSegment": _SEGMENT_READERS,
    "ListSegments": _SEGMENT_READERS,
    "ExportRecipient": any_person() | roles(ADMIN, COORDINATOR) | scopes("privacy"),
    "EraseRecipient": any_person() | roles(ADMIN, COORDINATOR) | scopes("privacy"),
    "CleanUpDirectory": scopes("internal"),
}
"""Each method's row of product.md's table of rights."""


class DirectoryServicer(DirectoryServiceServicer):
    """The directory of people, weddings, teams and segments; methods that are missing answer UNIMPLEMENTED."""

    def __init__(
        self,
        reads: DirectoryReads,
        writes: DirectoryWrites,
        segments: Segments,
        exporting: Exporting,
        erasing: Erasing,
        cleaner: Cleaner,
    ) -> None:
        self._reads = reads
        self._writes = writes
        self._segments = segments
        self._exporting = exporting
        self._erasing = erasing
        self._cleaner = cleaner

    @override
    async def UpsertRecipients(
        self, request: directory_pb2.UpsertRecipientsRequest, context: object
    ) -> directory_pb2.UpsertRecipientsResponse:
        may_change_admins = ADMIN_SCOPE in current_identity().scopes
        return await self._writes.upsert_people(request, may_change_admins=may_change_admins)

    @override
    async def GetRecipient(
        self, request: directory_pb2.GetRecipientRequest, context: object
    ) -> directory_pb2.GetRecipientResponse:
        found = await self._reads.get(current_identity().user_id, current_role(), UUID(request.user_id))
        return directory_pb2.GetRecipientResponse(recipient=recipient_message(found))

    @override
    async def UpsertWeddings(
        self, request: directory_pb2.UpsertWeddingsRequest, context: object
    ) -> directory_pb2.UpsertWeddingsResponse:
        return await self._writes.upsert_weddings(request)

    @override
    async def SetWeddingTeam(
        self, request: directory_pb2.SetWeddingTeamRequest, context: object
    ) -> directory_pb2.SetWeddingTeamResponse:
        return await self._writes.set_team(request)

    @override
    async def CreateSegment(
        self, request: directory_pb2.CreateSegmentRequest, context: object
    ) -> directory_pb2.CreateSegmentResponse:
        return await self._segments.create(request)

    @override
    async def UpdateSegment(
        self, request: directory_pb2.UpdateSegmentRequest, context: object
    ) -> directory_pb2.UpdateSegmentResponse:
        return await self._segments.update(request)

    @override
    async def GetSegment(
        self, request: directory_pb2.GetSegmentRequest, context: object
    ) -> directory_pb2.GetSegmentResponse:
        return await self._segments.get(UUID(request.segment_id))

    @override
    async def ListSegments(
        self, request: directory_pb2.ListSegmentsRequest, context: object
    ) -> directory_pb2.ListSegmentsResponse:
        return await self._segments.list(request)

    @override
    async def DeleteSegment(
        self, request: directory_pb2.DeleteSegmentRequest, context: object
    ) -> directory_pb2.DeleteSegmentResponse:
        return await self._segments.delete(request)

    @override
    async def ExportRecipient(
        self, request: directory_pb2.ExportRecipientRequest, context: object
    ) -> directory_pb2.ExportRecipientResponse:
        return await self._exporting.export(request, _privacy_reach())

    @override
    async def EraseRecipient(
        self, request: directory_pb2.EraseRecipientRequest, context: object
    ) -> directory_pb2.EraseRecipientResponse:
        return await self._erasing.erase(request, _privacy_reach())

    @override
    async def CleanUpDirectory(
        self, request: directory_pb2.CleanUpDirectoryRequest, context: object
    ) -> directory_pb2.CleanUpDirectoryResponse:
        cleaned = await self._cleaner.clean_up(dry_run=request.dry_run)
        return directory_pb2.CleanUpDirectoryResponse(cleaned=[each.message() for each in cleaned])


def _privacy_reach() -> Reach:
    """Whose rights to privacy the caller may see to: their own, or everybody's."""
    is_service = current_identity().user_id is None
    return Reach.EVERYONE if is_service or current_role() == ADMIN else Reach.SELF
