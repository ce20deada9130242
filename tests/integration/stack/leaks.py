"""Every policy of the suite with what would leak without it, by schema; each service lists its own."""

from collections.abc import Mapping, Sequence
from typing import Final

from tests.integration.dispatcher import leaks as dispatcher
from tests.integration.inbox import leaks as inbox
from tests.integration.preferences import leaks as preferences
from tests.integration.sender import leaks as sender
from tests.integration.shared.leaks import Leak

LEAKS: Final[Mapping[str, Sequence[Leak]]] = {
    "sender": sender.LEAKS,
    "preferences": preferences.LEAKS,
    "dispatcher": dispatcher.LEAKS,
    "inbox": inbox.LEAKS,
}
ROWS: Final[Mapping[str, str]] = {
    "sender": sender.ROWS,
    "preferences": preferences.ROWS,
    "dispatcher": dispatcher.ROWS,
    "inbox": inbox.ROWS,
}
