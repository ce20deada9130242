"""Who may say and hear what on NATS: one user a service, each with its allow-list, and the provisioner."""

from collections.abc import Callable, Mapping
from typing import Final

from shared import subjects
from shared.streams import (
    DISPATCHER_DUE,
    DISPATCHER_REPORT,
    INBOX_DELIVERY,
    INBOX_DIRECTORY,
    SENDER_STATE,
    Consumer,
)
from stack.nats import NatsUser

PROVISIONER: Final = "provisioner"
SERVICES: Final = ("sender", "preferences", "dispatcher", "inbox")

_SENDS: Final[Mapping[str, tuple[str, ...]]] = {
    "sender": (subjects.broadcast_due("*"),),
    "preferences": (subjects.DIRECTORY_CHANGED,),
    "dispatcher": (
        subjects.delivery_inbox("*"),
        subjects.delivery_external("*", "*"),
        subjects.broadcast_state("*"),
        subjects.LIVE_DISPATCH,
    ),
    "inbox": (subjects.DELIVERY_REPORT, subjects.LIVE_INBOX),
}
_HEARS: Final[Mapping[str, tuple[str, ...]]] = {
    "sender": (),
    "preferences": (),
    "dispatcher": (subjects.broadcast_due("critical"), subjects.broadcast_due("high")),
    "inbox": (subjects.LIVE_INBOX, subjects.LIVE_DISPATCH),
}
_WORKS_ON: Final[Mapping[str, tuple[Consumer, ...]]] = {
    "sender": (SENDER_STATE,),
    "preferences": (),
    "dispatcher": (*DISPATCHER_DUE.values(), DISPATCHER_REPORT),
    "inbox": (*INBOX_DELIVERY.values(), INBOX_DIRECTORY),
}


def users(password: Callable[[str], str]) -> list[NatsUser]:
    """Every NATS login of the suite; `password` answers for a name such as `nats_sender`."""
    provisioner = NatsUser(
        name=PROVISIONER,
        password=password(f"nats_{PROVISIONER}"),
        publish=("$JS.API.>",),
        subscribe=(f"{subjects.inbox_prefix(PROVISIONER)}.>",),
    )
    return [provisioner, *(_service_user(service, password(f"nats_{service}")) for service in SERVICES)]


def _service_user(service: str, password: str) -> NatsUser:
    pulls = (
        subject
        for consumer in _WORKS_ON[service]
        for subject in (
            subjects.next_request(consumer.stream, consumer.name),
            subjects.acknowledgements(consumer.stream, consumer.name),
        )
    )
    return NatsUser(
        name=service,
        password=password,
        publish=(*_SENDS[service], *pulls),
        subscribe=(*_HEARS[service], f"{subjects.inbox_prefix(service)}.>"),
    )
