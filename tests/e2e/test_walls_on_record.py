"""What was tried at a wall is on record; the last of the stories, because it takes a minute until it is."""

from wedsync.broadcast.v1.sender_pb2 import AuditAction, AuditEvent, ListAuditEventsRequest

from stack.world import demo_id
from tests.e2e.client import CALL_S, Client, eventually


async def test_an_attempt_at_a_wall_is_on_record_once_its_minute_is_over(
    client: Client, intruder: str
) -> None:
    """A coordinator who writes to a team that is not theirs, twice: a line for the minute, with how often."""

    async def told() -> list[AuditEvent] | None:
        request = ListAuditEventsRequest(
            actor=str(demo_id(intruder)), actions=[AuditAction.AUDIT_ACTION_WALL_REFUSED]
        )
        answer = await client.sender.ListAuditEvents(request, metadata=client.person("admin"), timeout=CALL_S)
        is_whole = sum(event.attempts for event in answer.events) == 2
        return list(answer.events) if is_whole else None

    events = await eventually(told, "the minute to be over", deadline_s=90)
    assert {event.method for event in events} == {"SenderService/SendBroadcast"}
