"""One rule for every RPC of the contract: what exists in it for a caller, how they are answered, how it is asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1 import audience_pb2, common_pb2, inbox_pb2, preferences_pb2, sender_pb2

from shared.audience import Audience
from tests.e2e.two_weddings import PEOPLE, SEARCH, TITLE, TOLD, A, B, World, wedding_entry
from tests.e2e.wall_table import (
    Asked,
    Caller,
    Expected,
    Names,
    View,
    answered,
    cancelled,
    decided,
    directory,
    everything,
    explaining,
    inbox,
    looked_up,
    not_known_yet,
    nothing,
    of_the_known,
    on_record,
    oneself,
    outdated_preferences,
    own_item,
    own_preferences,
    personal,
    planned,
    reading,
    resolved,
    sending,
    team,
    unsaid,
    vouched_for,
    within_reach,
)

Fields: TypeAlias = Mapping[str, object]
_NOBODYS_NUMBER: Final = 2**31 - 1
Shows: TypeAlias = Callable[[View, Asked], Names]


@dataclass(frozen=True, slots=True)
class Rule:
    """What one RPC may answer.

    `fill` are the fields of a request that can be served, `shows` the texts that an answer must have, neither more nor
    less. The world must stay as it is, so of what would change it `probes` says which names those may ask for whom it
    would serve; the others are refused, and may ask for anything.
    """

    view: Callable[[Caller], View]
    expected: Expected
    fill: Callable[[World, Caller], Fields] = lambda world, caller: {}
    shows: Shows | None = None
    probes: Callable[[View, Names], bool] = lambda view, names: True


def _what_is_not_theirs(view: View, names: Names) -> bool:
    return view.names.isdisjoint(names)


def _what_is_over(view: View, names: Names) -> bool:
    return not any(TOLD[name].is_for_tomorrow for name in names & view.names)


def _nothing_else(view: View, names: Names) -> bool:
    return False


def _texts_asked_for(view: View, asked: Asked) -> Names:
    return frozenset(f"text of {name}" for name in asked.of("broadcast"))


def _texts_of_the_inbox(view: View, asked: Asked) -> Names:
    """All that is in it, or what is about a wedding that was asked for."""
    about = asked.of("wedding")
    stories = {name for name in view.broadcasts if _is_about(name, view, about)}
    return frozenset(f"text of {name}" for name in stories)


def _texts_listed(view: View, asked: Asked) -> Names:
    """The same of those whom an author was asked for."""
    authors = asked.of("user")
    sent = {f"text of {name}" for name, story in TOLD.items() if not authors or story.author in authors}
    return _texts_of_the_inbox(view, asked) & sent


def _is_about(story: str, view: View, weddings: Names) -> bool:
    return not weddings or not (weddings & view.weddings).isdisjoint(TOLD[story].weddings)


def _of_broadcast(world: World, caller: Caller) -> Fields:
    own = "change A" if caller.home == A else "change B"
    return {"broadcast_id": world.id_of(own), "broadcast_ids": [world.id_of(own)]}


def _of_an_admin(world: World, caller: Caller) -> Fields:
    return {**_of_broadcast(world, caller), "user_id": world.id_of("admin")}


def _of_nothing(world: World, caller: Caller) -> Fields:
    """What changes something is asked about nothing by those who may."""
    nowhere = world.id_of("nowhere")
    return {"broadcast_id": nowhere, "user_id": nowhere, "segment_id": nowhere, "dry_run": True}


def _purpose(world: World, caller: Caller) -> Fields:
    return {**_of_broadcast(world, caller), "purpose": sender_pb2.DISPATCH_PURPOSE_CONTENT}


def _send(world: World, caller: Caller) -> Fields:
    return {
        **_preview(world, caller),
        "title": TITLE,
        "message": "Photos start at 14:45.",
        "validate_only": True,
    }


def _preview(world: World, caller: Caller) -> Fields:
    _, separator, types = caller.scope.partition(":")
    return {"type": types if separator else "journey.updated", "wedding_id": world.id_of(caller.home)}


def _quota(world: World, caller: Caller) -> Fields:
    return {**_preview(world, caller), "priority": common_pb2.PRIORITY_NORMAL}


def _receipts(world: World, caller: Caller) -> Fields:
    return {**_of_broadcast(world, caller), "action": common_pb2.RECEIPT_ACTION_READ}


def _preferences(world: World, caller: Caller) -> Fields:
    filters = [preferences_pb2.WeddingFilter(wedding_id=world.id_of(each)) for each in caller.weddings]
    return {
        "preferences": preferences_pb2.Preferences(wedding_filters=filters),
        "update_mask": {"paths": ["wedding_filters"]},
    }


def _outdated(world: World, caller: Caller) -> Fields:
    """A version that nobody has: what they have set stays."""
    return {"etag": "outdated"}


def _oneself(world: World, caller: Caller) -> Fields:
    return {"user_id": str((caller.member or PEOPLE["couple A"]).user_id)}


def _numbered(world: World, caller: Caller) -> Fields:
    """Somebody to an internal call, which is told their number too: here one that nobody has."""
    return {**_oneself(world, caller), "recipient_number": _NOBODYS_NUMBER}


def _of_nobody(world: World, caller: Caller) -> Fields:
    return {**_of_nothing(world, caller), "recipient_number": _NOBODYS_NUMBER}


def _people(world: World, caller: Caller) -> Fields:
    return {"recipients": [PEOPLE["couple A"].entry()]}


def _weddings(world: World, caller: Caller) -> Fields:
    return {"weddings": [wedding_entry(world.id_of(A))]}


def _team(world: World, caller: Caller) -> Fields:
    return {"wedding_id": world.id_of(A), "user_ids": [world.id_of(name) for name in sorted(team(A))]}


def _team_of_nothing(world: World, caller: Caller) -> Fields:
    return {"wedding_id": world.id_of("nowhere"), "team_version": 1, "members": Audience().to_bytes()}


def _segment_of_nothing(world: World, caller: Caller) -> Fields:
    return {"segment_id": world.id_of("nowhere"), "segment": {"name": "Nobody"}}


def _audience(world: World, caller: Caller) -> Fields:
    rules = audience_pb2.DeliveryRules(
        type="journey.updated",
        category=common_pb2.CATEGORY_COLLABORATION,
        priority=common_pb2.PRIORITY_NORMAL,
    )
    targeting = common_pb2.Targeting(roles=["couple"], wedding_ids=[world.id_of(A)])
    return {"targeting": targeting, "rules": rules, "members": Audience().to_bytes()}


def _access(world: World, caller: Caller) -> Fields:
    return {"wedding_ids": [world.id_of(A), world.id_of(B)], "user_ids": [world.id_of("couple A")]}


def _connection(world: World, caller: Caller) -> Fields:
    return {"subscribe": inbox_pb2.InboxSubscribe(handle=1, user_token=world.token)}


def _page(world: World, caller: Caller) -> Fields:
    return {"page_size": 100}


def _days(world: World, caller: Caller) -> Fields:
    """All that there are, which names the broadcasts that they are of."""
    return {"group": sender_pb2.ANALYTICS_GROUP_BROADCAST, "page_size": 1000}


def _search(world: World, caller: Caller) -> Fields:
    return {"search": SEARCH, "page_size": 100, "include_dismissed": True}


def _audit_event(world: World, caller: Caller) -> Fields:
    # Told by everybody under one id, it is recorded once.
    event = sender_pb2.RecordedAuditEvent(
        event_id=world.id_of("nowhere"),
        time=Timestamp(seconds=1),
        actor="nobody",
        action=sender_pb2.AUDIT_ACTION_ERASED,
        user_id=world.id_of("nowhere"),
    )
    return {"events": [event]}


RULES: Final[dict[str, Rule]] = {
    "SendBroadcast": Rule(sending, within_reach, _send),
    "PreviewAudience": Rule(sending, within_reach, _preview),
    "GetQuota": Rule(sending, within_reach, _quota),
    "GetBroadcast": Rule(reading, looked_up, _of_broadcast, _texts_asked_for),
    "WatchBroadcast": Rule(reading, looked_up, _of_broadcast),
    "CancelBroadcast": Rule(reading, cancelled, _of_broadcast, probes=_what_is_over),
    "ListBroadcasts": Rule(reading, answered, _page, _texts_listed),
    "GetAnalytics": Rule(reading, answered, _days),
    "ListReceipts": Rule(reading, looked_up, _of_broadcast),
    "ListDeliveries": Rule(reading, not_known_yet, _of_broadcast),
    **dict.fromkeys(("ApproveBroadcast", "RejectBroadcast"), Rule(reading, decided, _of_broadcast)),
    **dict.fromkeys(("ListAuditEvents", "VerifyAuditLog"), Rule(on_record, answered, _page)),
    "RecordAuditEvents": Rule(nothing, answered, _audit_event, probes=_nothing_else),
    "CleanUp": Rule(nothing, answered, _of_nothing),
    "CheckBroadcastAccess": Rule(everything, vouched_for, _of_an_admin),
    "GetDispatchOrder": Rule(everything, looked_up, _purpose, _texts_asked_for),
    "ListInboxItems": Rule(inbox, of_the_known, _search, _texts_of_the_inbox),
    "GetInboxItem": Rule(inbox, own_item, _of_broadcast, _texts_asked_for),
    "GetUnreadCount": Rule(nothing, of_the_known),
    "MarkAllRead": Rule(nothing, of_the_known),
    "RecordReceipts": Rule(inbox, of_the_known, _receipts),
    **dict.fromkeys(("SnoozeItem", "PinItem"), Rule(inbox, own_item, _of_broadcast)),
    "WatchInbox": Rule(inbox, of_the_known, shows=_texts_of_the_inbox),
    "ConnectInboxes": Rule(inbox, answered, _connection, _texts_of_the_inbox),
    "GetEngagement": Rule(everything, answered, _of_broadcast),
    "ListShownBroadcasts": Rule(everything, answered, _of_broadcast),
    **dict.fromkeys(
        ("CleanUpInboxes", "CleanUpDispatches", "CleanUpDirectory"), Rule(nothing, answered, _of_nothing)
    ),
    "ListReaders": Rule(everything, answered, _of_broadcast),
    "RetractBroadcast": Rule(everything, answered, _of_nothing, probes=_what_is_not_theirs),
    "StopDispatch": Rule(everything, answered, _of_nothing, probes=_what_is_not_theirs),
    "ApplyTeamChange": Rule(everything, answered, _team_of_nothing, probes=_what_is_not_theirs),
    "GetPreferences": Rule(oneself, own_preferences),
    "UpdatePreferences": Rule(oneself, own_preferences, _preferences),
    "ResetPreferences": Rule(oneself, outdated_preferences, _outdated),
    "GetRecommendedPreferences": Rule(oneself, own_preferences),
    "GetRecipient": Rule(directory, looked_up, _oneself),
    "UpsertRecipients": Rule(nothing, answered, _people, probes=_nothing_else),
    "UpsertWeddings": Rule(nothing, answered, _weddings, probes=_nothing_else),
    "SetWeddingTeam": Rule(nothing, answered, _team, probes=_nothing_else),
    **dict.fromkeys(("RegisterPushSubscription", "DeletePushSubscription"), Rule(oneself, not_known_yet)),
    "ListSegments": Rule(nothing, answered, _page),
    **dict.fromkeys(("GetSegment", "DeleteSegment"), Rule(nothing, looked_up, _of_nothing)),
    "CreateSegment": Rule(nothing, unsaid, probes=_nothing_else),
    "UpdateSegment": Rule(nothing, looked_up, _segment_of_nothing, probes=_nothing_else),
    "CountSegmentUses": Rule(everything, answered, _of_nothing),
    "ExportRecipient": Rule(personal, looked_up, _oneself),
    "EraseRecipient": Rule(personal, looked_up, _of_nothing, probes=_what_is_not_theirs),
    **dict.fromkeys(
        ("EraseInbox", "ErasePerson"), Rule(everything, answered, _of_nobody, probes=_what_is_not_theirs)
    ),
    "RefreshContents": Rule(everything, looked_up, _of_broadcast),
    **dict.fromkeys(("ExportInbox", "ExportPerson"), Rule(everything, answered, _numbered)),
    "ExportDeliveries": Rule(everything, answered, _numbered),
    "ResolveAudience": Rule(everything, resolved, _audience),
    "ReevaluateAudience": Rule(everything, resolved, _audience),
    "ListChanges": Rule(everything, answered),
    "CountAudience": Rule(everything, resolved, _audience),
    "CheckWeddingAccess": Rule(everything, answered, _access),
    "LookupRecipients": Rule(everything, answered, _access),
    "GetDispatch": Rule(everything, planned, _of_broadcast),
    "ExplainDelivery": Rule(explaining, not_known_yet, _of_broadcast),
    "ReportDelivery": Rule(nothing, not_known_yet, probes=_nothing_else),
    **dict.fromkeys(
        ("RetryDeliveries", "PauseDispatch", "ResumeDispatch", "ReplayDeadLetters", "LiftAddressSuppression"),
        Rule(nothing, not_known_yet, _of_nothing, probes=_what_is_not_theirs),
    ),
    **dict.fromkeys(("ListDeadLetters", "ListAddressSuppressions"), Rule(everything, not_known_yet)),
}

UNSERVED: Final = frozenset(
    {
        "DeletePushSubscription",
        "ExplainDelivery",
        "LiftAddressSuppression",
        "ListAddressSuppressions",
        "ListDeadLetters",
        "ListDeliveries",
        "PauseDispatch",
        "RegisterPushSubscription",
        "ReplayDeadLetters",
        "ReportDelivery",
        "ResumeDispatch",
        "RetryDeliveries",
    }
)
"""What is declared and not served yet; a test compares it to what the suite answers."""
