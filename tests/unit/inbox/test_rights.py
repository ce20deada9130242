"""Who may call what of the inbox."""

from wedsync.broadcast.v1 import inbox_pb2

from services.inbox.servicer import RIGHTS
from shared.rights import rights_gap


def test_every_method_has_a_right_and_every_right_a_method() -> None:
    """Also those that are not served yet."""
    assert not rights_gap(inbox_pb2.DESCRIPTOR.services_by_name["InboxService"], RIGHTS)


def test_a_persons_own_inbox_is_no_services_and_the_suites_calls_are_no_persons() -> None:
    """No scope opens an inbox; no person makes an internal call."""
    own = {name for name, right in RIGHTS.items() if right.any_person}
    assert own == {
        "ListInboxItems",
        "GetInboxItem",
        "GetUnreadCount",
        "RecordReceipts",
        "MarkAllRead",
        "SnoozeItem",
        "PinItem",
        "WatchInbox",
    }
    assert all(not RIGHTS[name].scopes for name in own)
    internal = {name for name, right in RIGHTS.items() if "internal" in right.scopes}
    assert internal == {
        "GetEngagement",
        "ListReaders",
        "RetractBroadcast",
        "ApplyTeamChange",
        "ListShownBroadcasts",
        "CleanUpInboxes",
        "EraseInbox",
        "RefreshContents",
        "ExportInbox",
    }
