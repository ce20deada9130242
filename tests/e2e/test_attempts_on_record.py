"""What was tried at a wall is on record once its minute is over.

A sender that is killed loses the minute that it adds up, and of one in which very many are refused not everybody is
kept apart. So this waits for its minute here, and comes before the stories that do either.
"""

from wedsync.broadcast.v1.sender_pb2 import AuditAction, AuditEvent, ListAuditEventsRequest

from stack.world import demo_id
from tests.e2e.client import CALL_S, Client, broadcast, eventually, refused_send

INTRUDER = "intruder"


async def test_an_attempt_at_a_wall_is_on_record_once_its_minute_is_over(client: Client) -> None:
    """A coordinator who writes to a team that is not theirs, twice: a line for the minute, with how often."""
    await client.add_coordinator(INTRUDER)
    request = broadcast(type="timeline.changed", wedding_id=str(demo_id("wedding-1")))

    async def is_kept_out() -> bool:
        _, details = await refused_send(client, request, INTRUDER)
        return details.reason_name == "OUTSIDE_REACH"

    await eventually(is_kept_out, "the sender to know them")
    assert await is_kept_out()

    async def told() -> list[AuditEvent] | None:
        request = ListAuditEventsRequest(
            actor=str(demo_id(INTRUDER)), actions=[AuditAction.AUDIT_ACTION_WALL_REFUSED]
        )
        answer = await client.sender.ListAuditEvents(request, metadata=client.person("admin"), timeout=CALL_S)
        is_whole = sum(event.attempts for event in answer.events) == 2
        return list(answer.events) if is_whole else None

    events = await eventually(told, "the minute to be over", deadline_s=90)
    assert {event.method for event in events} == {"SenderService/SendBroadcast"}
