"""Owns what JetStream keeps: the streams and the consumers that services bind to.

All streams are work queues: a message is there until it is acknowledged, so a stream's size is the lag, and consumers
that were lost start where the work is and not at the beginning of history. A full subject refuses what comes (`discard
new`) instead of dropping the oldest, which nobody would notice: the outbox that sent it keeps it and tries again. The
limit holds for each subject, so that a flood of low priority leaves room for critical ones.

`max_age_s` bounds only what nobody takes. Where a lease of seconds re-drives the work anyway it is short, so that an
outage of hours does not pile up repetitions; where nothing does it is days.
"""

from dataclasses import dataclass
from typing import Final

from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from shared import subjects

_MINUTE_S: Final = 60.0
_DAY_S: Final = 24 * 60 * _MINUTE_S
_MIB: Final = 1024 * 1024
_DUPLICATE_WINDOW_S: Final = 2 * _MINUTE_S
"""How long a message id is remembered: a repetition after that is stored again."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream on files; `max_bytes` is so large that the limit of messages on each subject always comes first."""

    name: str
    subjects: tuple[str, ...]
    description: str
    max_messages_per_subject: int
    max_bytes: int
    max_age_s: float
    duplicate_window_s: float = _DUPLICATE_WINDOW_S

    def config(self, replicas: int) -> StreamConfig:
        """As JetStream takes it."""
        return StreamConfig(
            name=self.name,
            description=self.description,
            subjects=list(self.subjects),
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            discard_new_per_subject=True,
            max_msgs_per_subject=self.max_messages_per_subject,
            max_bytes=self.max_bytes,
            max_age=self.max_age_s,
            duplicate_window=self.duplicate_window_s,
            num_replicas=replicas,
        )


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable pull consumer with explicit acknowledgement.

    A message that nobody answers for comes again after `ack_wait_s`, one that failed after the delay that the worker
    asks for, until it has come `max_deliver` times: an outage of some minutes is waited out. The server is given no
    waits that grow, because it adds their growth to the delays that workers ask for. `max_ack_pending` bounds what is
    being worked on everywhere together.
    """

    stream: str
    name: str
    subject: str
    description: str
    ack_wait_s: float = 5.0
    max_deliver: int = 20
    max_ack_pending: int = 1_000

    def config(self) -> ConsumerConfig:
        """As JetStream takes it."""
        return ConsumerConfig(
            name=self.name,
            durable_name=self.name,
            description=self.description,
            filter_subject=self.subject,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self.ack_wait_s,
            max_deliver=self.max_deliver,
            max_ack_pending=self.max_ack_pending,
        )


STREAMS: Final = (
    Stream(
        subjects.BROADCAST_DUE_STREAM,
        tuple(map(subjects.broadcast_due, subjects.PRIORITIES)),
        "Broadcasts whose time has come. The sender's outbox re-drives each until it is sent.",
        max_messages_per_subject=40_000,
        max_bytes=64 * _MIB,
        max_age_s=10 * _MINUTE_S,
    ),
    Stream(
        subjects.DELIVERY_INBOX_STREAM,
        tuple(map(subjects.delivery_inbox, subjects.PRIORITIES)),
        "Chunks of audiences, of 8 KiB and at worst 64. The dispatcher re-drives each until it is reported.",
        max_messages_per_subject=2_000,
        max_bytes=512 * _MIB,
        max_age_s=10 * _MINUTE_S,
    ),
    Stream(
        subjects.DELIVERY_REPORT_STREAM,
        (subjects.DELIVERY_REPORT,),
        "What became of chunks. A lost one is sent again when its chunk is.",
        max_messages_per_subject=100_000,
        max_bytes=64 * _MIB,
        max_age_s=_DAY_S,
    ),
    Stream(
        subjects.BROADCAST_STATE_STREAM,
        tuple(map(subjects.broadcast_state, subjects.STATES)),
        "What broadcasts have come to, for the sender.",
        max_messages_per_subject=50_000,
        max_bytes=64 * _MIB,
        max_age_s=7 * _DAY_S,
    ),
    Stream(
        subjects.DIRECTORY_STREAM,
        (subjects.DIRECTORY_CHANGED,),
        "Changes of teams, for the inbox's own wall.",
        max_messages_per_subject=100_000,
        max_bytes=64 * _MIB,
        max_age_s=30 * _DAY_S,
    ),
)

DISPATCHER_DUE: Final = {
    priority: Consumer(
        subjects.BROADCAST_DUE_STREAM,
        subjects.dispatcher_due(priority),
        subjects.broadcast_due(priority),
        "The dispatcher's lane: broadcasts to be planned.",
    )
    for priority in subjects.PRIORITIES
}
INBOX_DELIVERY: Final = {
    priority: Consumer(
        subjects.DELIVERY_INBOX_STREAM,
        subjects.inbox_delivery(priority),
        subjects.delivery_inbox(priority),
        "The inbox's lane: chunks to be merged.",
    )
    for priority in subjects.PRIORITIES
}
DISPATCHER_REPORT: Final = Consumer(
    subjects.DELIVERY_REPORT_STREAM,
    subjects.DISPATCHER_REPORT,
    subjects.DELIVERY_REPORT,
    "The dispatcher's ledger: what became of chunks.",
)
SENDER_STATE: Final = Consumer(
    subjects.BROADCAST_STATE_STREAM,
    subjects.SENDER_STATE,
    subjects.broadcast_state("*"),
    "The sender's states: what broadcasts have come to.",
)
INBOX_DIRECTORY: Final = Consumer(
    subjects.DIRECTORY_STREAM,
    subjects.INBOX_DIRECTORY,
    subjects.DIRECTORY_CHANGED,
    "The inbox's wall: teams that have changed.",
)
CONSUMERS: Final = (
    *DISPATCHER_DUE.values(),
    *INBOX_DELIVERY.values(),
    DISPATCHER_REPORT,
    SENDER_STATE,
    INBOX_DIRECTORY,
)
