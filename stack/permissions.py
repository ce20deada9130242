"""Who may say and hear what on NATS: one user a service, each with its allow-list, and the provisioner."""

from collections.abc import Callable

from stack.nats import NatsUser

PROVISIONER = "provisioner"
SERVICES = ("sender", "preferences", "dispatcher", "inbox")

_SENDS: dict[str, tuple[str, ...]] = {
    "sender": ("broadcast.due.*",),
    "preferences": ("directory.changed",),
    "dispatcher": ("delivery.inbox.*", "delivery.external.>", "broadcast.state.*"),
    "inbox": ("delivery.report", "live.inbox"),
}
_HEARS: dict[str, tuple[str, ...]] = {"inbox": ("live.inbox",)}
_PULLS: dict[str, tuple[str, ...]] = {
    "sender": ("BROADCAST_STATE",),
    "preferences": (),
    "dispatcher": ("BROADCAST_DUE", "DELIVERY_REPORT"),
    "inbox": ("DELIVERY_INBOX", "DIRECTORY"),
}


def users(password: Callable[[str], str]) -> list[NatsUser]:
    """Every NATS login of the stack; `password` answers for a name such as `nats_sender`."""
    provisioner = NatsUser(
        PROVISIONER,
        password(f"nats_{PROVISIONER}"),
        publish=("$JS.API.>",),
        subscribe=(f"_INBOX_{PROVISIONER}.>",),
    )
    return [provisioner, *(_service_user(service, password(f"nats_{service}")) for service in SERVICES)]


def inbox_prefix(user: str) -> str:
    """The reply subjects of a user, apart from everybody else's."""
    return f"_INBOX_{user}"


def _service_user(service: str, password: str) -> NatsUser:
    pulls = tuple(
        subject
        for stream in _PULLS[service]
        for subject in (
            f"$JS.API.CONSUMER.INFO.{stream}.*",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
            f"$JS.ACK.{stream}.>",
        )
    )
    return NatsUser(
        name=service,
        password=password,
        publish=(*_SENDS[service], *pulls),
        subscribe=(*_HEARS.get(service, ()), f"{inbox_prefix(service)}.>"),
    )
