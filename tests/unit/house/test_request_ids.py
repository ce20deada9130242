"""Every RPC that changes something takes a request_id, or says why calling it twice is calling it once."""

from collections.abc import Mapping

import pytest
from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from wedsync.broadcast.v1 import (
    audience_pb2,
    directory_pb2,
    dispatcher_pb2,
    inbox_pb2,
    preferences_pb2,
    sender_pb2,
)

from services.dispatcher.servicer import DispatcherServicer
from services.inbox.servicer import InboxServicer
from services.preferences.audience_servicer import AudienceServicer
from services.preferences.directory_servicer import DirectoryServicer
from services.preferences.servicer import PreferencesServicer
from services.sender.servicer import SenderServicer

FILES = (sender_pb2, inbox_pb2, preferences_pb2, directory_pb2, audience_pb2, dispatcher_pb2)
METHODS: Mapping[str, MethodDescriptor] = {
    method.name: method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
SERVICERS = (
    SenderServicer,
    InboxServicer,
    PreferencesServicer,
    DirectoryServicer,
    AudienceServicer,
    DispatcherServicer,
)

READS = {
    *("GetBroadcast", "ListBroadcasts", "PreviewAudience", "WatchBroadcast", "GetAnalytics", "GetQuota"),
    *("ListAuditEvents", "VerifyAuditLog", "CountSegmentUses"),
    *("ListInboxItems", "GetInboxItem", "GetUnreadCount", "WatchInbox", "ConnectInboxes", "ListReceipts"),
    *("GetEngagement", "ListReaders", "ListShownBroadcasts", "CheckBroadcastAccess"),
    *("GetPreferences", "GetRecommendedPreferences"),
    *("GetRecipient", "GetSegment", "ListSegments", "ExportRecipient"),
    *("ResolveAudience", "ReevaluateAudience", "ListChanges", "CountAudience"),
    *("CheckWeddingAccess", "LookupRecipients"),
    *("ExportInbox", "ExportPerson", "ExportDeliveries"),
    *("GetDispatch", "ListDeliveries", "ExplainDelivery", "ListDeadLetters", "ListAddressSuppressions"),
}
CHANGES = {
    *("SendBroadcast", "CancelBroadcast", "ApproveBroadcast", "RejectBroadcast", "CleanUp"),
    *("RecordReceipts", "MarkAllRead", "SnoozeItem", "PinItem"),
    *("UpdatePreferences", "ResetPreferences"),
    *("UpsertRecipients", "UpsertWeddings", "SetWeddingTeam", "EraseRecipient"),
    *("RegisterPushSubscription", "DeletePushSubscription"),
    *("CreateSegment", "UpdateSegment", "DeleteSegment"),
    *("ReportDelivery", "RetryDeliveries", "PauseDispatch", "ResumeDispatch"),
    *("ReplayDeadLetters", "LiftAddressSuppression"),
}
ONCE_BY_NATURE = {
    "GetDispatchOrder": "PLAN moves a broadcast once, and whoever plans it again must be told how it stands by now",
    "StopDispatch": "the tombstone is the broadcast's; told again it counts what is there by now, which a cancel needs",
    "RetractBroadcast": "the tombstone is the broadcast's, and what had arrived before it never changes",
    "CleanUpInboxes": "what is too old goes once; told again it removes what has become so since, and answers that",
    "CleanUpDispatches": "the same",
    "CleanUpDirectory": "the same",
    "RecordAuditEvents": "each event has an id of its own, by which the log has it once",
    "EraseInbox": "a person is gone once; told again it removes what was being written meanwhile",
    "ErasePerson": "the same",
    "RefreshContents": "what the sender says by now is shown, however often it is fetched",
    "ApplyTeamChange": "the team's version tells a repetition, and the answer is the version that holds by now",
}
"""Internal ones, which name what they are about by a key of its own: a first answer would be an old one."""


def is_served(method: MethodDescriptor) -> bool:
    """Whether a servicer of ours has it, and not only the generated class that answers UNIMPLEMENTED."""
    return any(method.name in vars(servicer) for servicer in SERVICERS)


def is_optional_uuid(field: FieldDescriptor) -> bool:
    """Whether the contract lets in a UUID or nothing."""
    rules = field.GetOptions().Extensions[validate_pb2.field]
    return bool(rules.string.uuid) and rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE


def test_every_rpc_is_said_to_read_or_to_change() -> None:
    """Once each: a new RPC cannot be added without somebody having thought of its repetition."""
    listed = [*READS, *CHANGES, *ONCE_BY_NATURE]
    assert sorted(listed) == sorted(METHODS)


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_what_changes_something_takes_a_request_id(name: str) -> None:
    """By the time it is served; what answers a repetition is then demanded where its server is built."""
    field = METHODS[name].input_type.fields_by_name.get("request_id")
    assert field is None or is_optional_uuid(field)
    assert field is not None or not is_served(METHODS[name])


@pytest.mark.parametrize("name", sorted(READS | ONCE_BY_NATURE.keys()))
def test_nothing_else_pretends_to(name: str) -> None:
    """A request_id that changes nothing would be a promise that nobody keeps."""
    assert "request_id" not in METHODS[name].input_type.fields_by_name
