"""What a sender is told of what they have left."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1.sender_pb2 import Quota

from cli import output, quotas


@pytest.mark.parametrize(("nanos", "second"), [(0, 40), (1, 41), (999_999_999, 41)])
def test_the_second_that_is_told_is_not_too_early(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, nanos: int, second: int
) -> None:
    """Whoever comes back at it finds room: a part of a second counts as a whole one."""
    monkeypatch.setattr(output.console, "width", 200)
    reset = Timestamp(seconds=1_800_000_000 + 40, nanos=nanos)
    told = output.moment(Timestamp(seconds=1_800_000_000 + second))
    quotas.print_quota(Quota(hour_limit=5, day_limit=20, day_remaining=15, reset_time=reset))
    assert capsys.readouterr().out == (
        f"Left to send: 0 of 5 in this hour, 15 of 20 in 24 hours; the next is free at {told}.\n"
    )
