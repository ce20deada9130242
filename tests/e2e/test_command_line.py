"""The `broadcast` command as scripts use it: JSON on standard output, exit codes, fields named on standard error."""

import asyncio
import json
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import Signals
from uuid import uuid4

import pytest

from cli.exits import ExitCode
from stack.background import BackgroundStack
from stack.tokens import TokenMint
from stack.world import demo_id
from tests.e2e.client import eventually


class Command:
    """Runs `broadcast` against a suite."""

    def __init__(self, suite: BackgroundStack, **variables: str) -> None:
        self._environment = {"PATH": "/usr/bin:/bin", **suite.environment, **variables}
        self._mint = TokenMint.existing(suite.state.keys)

    async def __call__(self, *arguments: str, who: str = "admin") -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        async with self.started(*arguments, who=who) as process:
            output, errors = await process.communicate()
            code = await process.wait()
        if code < 0:
            told = f"it had said {output.decode()!r} and {errors.decode()!r}"
            raise AssertionError(
                f"`broadcast {shlex.join(arguments)}` was ended by {Signals(-code).name}: {told}"
            )
        return code, output.decode(), errors.decode()

    @asynccontextmanager
    async def started(self, *arguments: str, who: str = "admin") -> AsyncIterator[asyncio.subprocess.Process]:
        """The running command, ended with the block."""
        command = [str(Path(sys.executable).with_name("broadcast"))]
        command += ["--token", self._mint.mint_user_token(demo_id(who)), *arguments]
        process = await asyncio.create_subprocess_exec(
            *command,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def service(self, scope: str, *arguments: str) -> tuple[int, str, str]:
        """The same, as a service account."""
        token = self._mint.mint_service_token("ops", [scope])
        return await self("--token", token, *arguments)


@pytest.fixture(scope="module")
def command(suite: BackgroundStack) -> Command:
    """The command, pointed at the suite."""
    return Command(suite)


async def test_a_crash_is_no_exit_code(suite: BackgroundStack, tmp_path: Path) -> None:
    """A command that a signal has ended fails its test, by the name of the signal, whatever was to be tested."""
    crash = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    (tmp_path / "sitecustomize.py").write_text(crash)
    crashing = Command(suite, PYTHONPATH=str(tmp_path))
    with pytest.raises(AssertionError, match="`broadcast inbox count` was ended by SIGKILL"):
        await crashing("inbox", "count")


SEND = ("--json", "send", "--type", "feature.released", "--title", "From a script", "--message", "Hello")


async def test_a_script_sends_and_reads(command: Command) -> None:
    """What was sent is listed for its recipient, acknowledged, and gone from what is unread."""
    code, output, _ = await command(*SEND, "--user", str(demo_id("venue")), "--watch")
    assert code == 0
    sent, *progress = [json.loads(line) for line in output.splitlines()]
    assert progress[-1]["state"] == "BROADCAST_STATE_SENT"
    broadcast_id = sent["broadcast"]["broadcast_id"]
    _, listed, _ = await command("--json", "inbox", "list", "--unread", who="venue")
    assert broadcast_id in {item["broadcast_id"] for item in json.loads(listed)["items"]}
    code, _, _ = await command("inbox", "ack", broadcast_id, who="venue")
    assert code == 0
    _, shown, _ = await command("--json", "show", broadcast_id)
    assert json.loads(shown)["stats"]["engagement"]["acknowledged"] == "1"


async def test_somebody_puts_their_inbox_in_order(command: Command) -> None:
    """An item is found by its words, pinned, snoozed and brought back, and its sender sees that it was read."""
    send = ("--json", "send", "--type", "feature.released", "--title", "Zwölf Körbe", "--message", "Blumen")
    _, output, _ = await command(*send, "--user", str(demo_id("venue")), "--watch")
    broadcast_id = json.loads(output.splitlines()[0])["broadcast"]["broadcast_id"]
    code, output, _ = await command("--json", "inbox", "search", "korbe", "zwo", who="venue")
    assert code == 0
    assert [item["broadcast_id"] for item in json.loads(output)["items"]] == [broadcast_id]
    code, output, _ = await command("inbox", "pin", broadcast_id, who="venue")
    assert (code, output.startswith("Pinned since")) == (0, True)
    _, output, _ = await command("--json", "inbox", "list", who="venue")
    assert json.loads(output)["items"][0]["broadcast_id"] == broadcast_id
    code, output, _ = await command("inbox", "snooze", broadcast_id, "--minutes", "60", who="venue")
    assert (code, output.startswith("Snoozed until")) == (0, True)
    _, output, _ = await command("inbox", "list", who="venue")
    assert broadcast_id not in output
    code, output, _ = await command("inbox", "wake", broadcast_id, who="venue")
    assert (code, output.startswith("Back in the list")) == (0, True)
    code, output, _ = await command("inbox", "unpin", broadcast_id, who="venue")
    assert (code, output) == (0, "Not pinned\n")
    await command("inbox", "ack", broadcast_id, who="venue")
    code, output, _ = await command("receipts", broadcast_id)
    assert (code, "1 of 1 have acknowledged it" in output) == (0, True)
    _, output, _ = await command("receipts", broadcast_id, "--waiting")
    assert str(demo_id("venue")) not in output


ALARM = (
    "send",
    "--type",
    "security.alert",
    "--priority",
    "critical",
    "--title",
    "Alarm",
    "--message",
    "Look",
)


async def test_an_alarm_is_approved_by_another_admin(command: Command) -> None:
    """The sender is told what somebody else has to type, cannot type it themselves, and the others can."""
    code, output, _ = await command(*ALARM, "--user", "venue")
    assert code == 0
    assert "awaiting_approval, for 1 person" in output
    (typed,) = (line.partition(": ")[2] for line in output.splitlines() if "another admin" in line)
    program, *arguments = typed.split()
    assert (program, arguments[0]) == ("broadcast", "approve")
    code, _, errors = await command(*arguments)
    assert code == 4
    assert "Nobody decides about their own broadcast" in errors
    code, output, _ = await command(*arguments, "--reason", "Seen.", who="approver")
    assert (code, output) == (0, "Approved: it is pending.\n")
    _, output, _ = await command("show", arguments[1])
    assert "Seen." in output


async def test_an_alarm_is_rejected(command: Command) -> None:
    """The watcher of its sender sees it wait and end; a dry run would have said that it waits."""
    code, output, _ = await command(*ALARM, "--user", "venue", "--dry-run")
    assert (code, output.splitlines()[0]) == (
        0,
        "Would wait for approval by another admin, then be sent to 1 person.",
    )
    _, output, _ = await command("--json", *ALARM, "--user", "venue")
    broadcast_id = json.loads(output)["broadcast"]["broadcast_id"]
    watching = asyncio.create_task(command("watch", broadcast_id))
    code, output, _ = await command("reject", broadcast_id, "--reason", "No.", who="approver")
    assert (code, output) == (0, "Rejected: nobody will get it.\n")
    code, output, _ = await watching
    assert code == 0
    assert "rejected" in output
    code, _, _ = await command("approve", broadcast_id, who="approver")
    assert code == 6


async def test_watching_goes_on_when_the_sender_is_replaced(command: Command, suite: BackgroundStack) -> None:
    """The stream is cut off; it is opened again, nothing is told twice, and the command ends with the broadcast."""
    _, output, _ = await command("--json", *ALARM, "--user", "venue")
    broadcast_id = json.loads(output)["broadcast"]["broadcast_id"]
    async with command.started("--json", "watch", broadcast_id) as process:
        assert process.stdout is not None
        told = [json.loads(await process.stdout.readline())["state"]]
        suite.kill("sender")

        async def is_approved() -> bool:
            code, _, _ = await command("approve", broadcast_id, who="approver")
            assert code in (ExitCode.OK, ExitCode.UNAVAILABLE)
            return code == ExitCode.OK

        await eventually(is_approved, "a sender that answers", deadline_s=60.0)
        output, errors = await process.communicate()
    told += [json.loads(line)["state"] for line in output.splitlines()]
    assert process.returncode == 0
    assert told[0] == "BROADCAST_STATE_AWAITING_APPROVAL"
    assert told[-1] == "BROADCAST_STATE_SENT"
    assert told.count(told[0]) == 1
    assert "watching again" in errors.decode()


@pytest.mark.parametrize(
    ("arguments", "who", "code", "complaint"),
    [
        ((*SEND, "--role", "NOT A SLUG"), "admin", 3, "targeting.roles[0]"),
        ((*SEND, "--everyone"), "photographer", 4, "PERMISSION_DENIED"),
        (("show", "00000000-0000-4000-8000-000000000000"), "admin", 5, "NOT_FOUND"),
        ((*SEND, "--everyone", "--priority", "urgent"), "admin", 2, "--priority"),
        (("inbox", "ack", "00000000-0000-4000-8000-000000000000"), "venue", 5, "Not in this inbox"),
        (("inbox", "pin", "00000000-0000-4000-8000-000000000000"), "venue", 5, "There is no such thing"),
        (("inbox", "snooze", "00000000-0000-4000-8000-000000000000"), "venue", 2, "--until or --minutes"),
        (("receipts", "00000000-0000-4000-8000-000000000000"), "admin", 5, "There is no such thing"),
        (("prefs", "set", "--quiet", "22:00-22:00"), "venue", 3, "quiet_hours"),
        (("prefs", "set"), "venue", 2, "Nothing to change"),
        (("prefs", "set", "--mute-type", "trial.ending"), "venue", 2, "--mute-type ROLE:TYPE"),
    ],
)
async def test_exit_codes_mean_something(
    command: Command, arguments: tuple[str, ...], who: str, code: int, complaint: str
) -> None:
    """Each kind of failure has its code, and standard error says what to mend."""
    actual, _, errors = await command(*arguments, who=who)
    assert code == actual
    assert complaint in errors


async def test_a_script_learns_what_it_may_still_send(command: Command) -> None:
    """Few that are left are told unasked; past the last one the exit code is its own, and says when to come again."""
    asked = ("--type", "wedding.emergency", "--priority", "critical", "--wedding", "wedding-1")
    _, output, _ = await command("--json", "quota", *asked)
    assert json.loads(output)["quota"] == {
        "hour_limit": 5, "hour_remaining": 5, "day_limit": 20, "day_remaining": 20
    }  # fmt: skip
    told = []
    for number in range(5):
        code, output, _ = await command(
            "send", *asked, "--title", f"Try {number}", "--message", "Please wait."
        )
        assert code == 0
        told.append("Left to send" in output)
    assert told == [False, False, False, True, True]
    code, _, errors = await command("send", *asked, "--title", "Once more", "--message", "Please wait.")
    assert code == 7
    assert "RATE_LIMITED" in errors
    assert "Try again in" in " ".join(errors.split())
    _, output, _ = await command("quota", *asked)
    told_now = " ".join(output.split())
    assert told_now.startswith("Left to send: 0 of 5 in this hour, 15 of 20 in 24 hours; the next is free at")


async def test_an_operator_cleans_up(command: Command) -> None:
    """Every service by name, the dry run first; whoever is no operator is refused."""
    counts = []
    for dry_run in (["--dry-run"], []):
        code, output, errors = await command.service(
            "dispatch.operate", "--json", "admin", "cleanup", *dry_run
        )
        assert (code, errors) == (0, "")
        services = {each["service"]: each.get("cleaned", []) for each in json.loads(output)["services"]}
        assert services.keys() == {"sender", "inbox", "dispatcher", "preferences"}
        counts.append({f"{name} {each['what']}" for name, cleaned in services.items() for each in cleaned})
    assert counts[0] == counts[1] >= {"sender broadcasts", "inbox items", "dispatcher dispatches"}
    code, output, _ = await command("admin", "cleanup", "--dry-run")
    assert (code, "would be removed" in output, "90 days" in output) == (0, True, True)
    code, _, errors = await command("admin", "cleanup", who="photographer")
    assert (code, "PERMISSION_DENIED" in errors) == (4, True)


@pytest.mark.parametrize(
    "arguments", [("show", str(uuid4())), ("inbox", "watch"), ("inbox", "watch", "--cursor", "a-place")]
)
async def test_nobody_there_is_unavailable(suite: BackgroundStack, arguments: tuple[str, ...]) -> None:
    """A service that does not answer is an exit code of its own; a watch is no different, wherever it was to go on."""
    away = Command(suite, SENDER_ADDR="127.0.0.1:1", INBOX_ADDR="127.0.0.1:1")
    code, _, errors = await asyncio.wait_for(away(*arguments), 30)
    assert code == 8
    assert "UNAVAILABLE" in errors


async def test_a_watch_goes_on_after_its_cursor(command: Command) -> None:
    """What came since is told first, and once."""
    _, output, _ = await command("--json", *SEND[1:], "--user", "venue", "--watch")
    async with command.started("--json", "inbox", "watch", who="venue") as process:
        assert process.stdout is not None
        cursor = json.loads(await process.stdout.readline())["cursor"]
    _, output, _ = await command(*SEND, "--user", "venue", "--watch")
    missed = json.loads(output.splitlines()[0])["broadcast"]["broadcast_id"]
    async with command.started("--json", "inbox", "watch", "--cursor", cursor, who="venue") as process:
        assert process.stdout is not None
        event = json.loads(await process.stdout.readline())
    assert event["added"]["item"]["broadcast_id"] == missed


TEXTS = ("[draft] Seating", "menu [/vegan] closes", "at :bell: [red]now[/red]")


async def test_texts_of_others_are_shown_as_they_are(suite: BackgroundStack) -> None:
    """What looks like a style, the end of one or an emoji is none, and keeps nobody from reading all the rest."""
    command, ids = Command(suite, COLUMNS="200"), []
    for text in TEXTS:
        send = ("--json", "send", "--type", "feature.released", "--title", text, "--message", text)
        _, output, _ = await command(*send, "--user", "florist", "--watch")
        ids.append(json.loads(output.splitlines()[0])["broadcast"]["broadcast_id"])
    for arguments, who in ((("inbox", "list"), "florist"), (("list",), "admin")):
        code, output, errors = await command(*arguments, who=who)
        assert (code, errors) == (0, "")
        assert [text for text in TEXTS if text not in output] == []
    for broadcast_id, text in zip(ids, TEXTS, strict=True):
        for arguments, who in (
            (("inbox", "show", broadcast_id), "florist"),
            (("show", broadcast_id), "admin"),
        ):
            _, output, _ = await command(*arguments, who=who)
            assert output.count(text) == 2


async def test_preferences_are_set_and_shown(command: Command) -> None:
    """What was set is what is shown, and what was not given stays."""
    code, output, _ = await command(
        "--json", "prefs", "set", "--business", "off", "--quiet", "22:30-06:15", who="outsider"
    )
    assert code == 0
    assert json.loads(output)["preferences"]["business"] is False
    _, output, _ = await command("prefs", "get", who="outsider")
    assert "22:30-06:15" in output
    assert "business off" in output
    assert "collaboration on" in output


async def test_preferences_by_role_and_wedding_are_set_and_reset(command: Command) -> None:
    """Each is added to what is there and taken back alone; a reset takes back all of it."""
    wedding = str(demo_id("wedding-1"))
    for arguments in (
        ("--mute-type", "venue:trial.ending", "--role-channels", "venue:email,push"),
        ("--mute-type", "venue:tier.upgraded", "--mute-wedding", "wedding-1"),
        ("--unmute-type", "venue:trial.ending", "--wedding-channels", "wedding-1:realtime"),
    ):
        code, output, _ = await command("--json", "prefs", "set", *arguments, who="venue")
        assert code == 0
    kept = json.loads(output)["preferences"]
    assert kept["role_settings"] == [
        {
            "role": "venue",
            "muted_types": ["tier.upgraded"],
            "channels": ["CHANNEL_IN_APP", "CHANNEL_EMAIL", "CHANNEL_PUSH"],
        }
    ]
    assert kept["wedding_filters"] == [
        {"wedding_id": wedding, "muted": True, "channels": ["CHANNEL_REALTIME", "CHANNEL_IN_APP"]}
    ]
    _, output, _ = await command("prefs", "get", who="venue")
    shown = " ".join(output.split())
    assert "as venue muted tier.upgraded; by in_app, email, push" in shown
    assert f"for a wedding {wedding} muted; by realtime, in_app" in shown
    code, _, errors = await command("prefs", "reset", "--etag", "another", who="venue")
    assert (code, "STALE_ETAG" in errors) == (6, True)
    code, output, _ = await command("--json", "prefs", "reset", who="venue")
    reset = json.loads(output)["preferences"]
    assert (code, reset["edited"]) == (0, False)
    assert not reset.get("role_settings")
    assert not reset.get("wedding_filters")


async def test_what_is_recommended_is_shown_and_taken(command: Command) -> None:
    """Why each value is, which of them differ, and one of them or all taken by the same command."""
    code, _, _ = await command("prefs", "set", "--business", "off", "--quiet", "off", who="florist")
    assert code == 0
    _, output, _ = await command("prefs", "recommended", who="florist")
    told = {line.split()[1] for line in output.splitlines() if line.startswith("differs")}
    assert told == {"business", "quiet_hours"}
    assert "22:00-07:00" in output
    code, output, _ = await command("prefs", "recommended", "--only", "quiet_hours", who="florist")
    assert (code, "22:00-07:00" in output, "business off" in output) == (0, True, True)
    code, output, _ = await command("prefs", "recommended", "--apply", who="florist")
    assert (code, "business on" in output) == (0, True)


async def test_a_directory_file_is_upserted(command: Command, tmp_path: Path) -> None:
    """A CSV of people becomes recipients; the second time none is new."""
    people = tmp_path / "people.csv"
    rows = [f"{uuid4()},Person {n},baker,supplier,free,,,Europe/Vienna" for n in range(3)]
    heading = "user_id,display_name,role,user_type,tier,email,phone,time_zone"
    people.write_text("\n".join([heading, *rows]) + "\n")
    created = []
    for _ in range(2):
        code, output, _ = await command.service(
            "directory.write", "--json", "directory", "upsert", str(people)
        )
        assert code == 0
        created.append(json.loads(output)["created"])
    assert created == [3, 0]
