"""Settings from the environment: what is read, and that every refusal names its variable and its rule."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shared.settings import Address, Environment, SettingsError

BROKEN: list[tuple[str, Callable[[Environment], object], str]] = [
    ("", lambda env: env.text("NAME"), "NAME is not set."),
    ("  ", lambda env: env.text("NAME"), "NAME is not set."),
    (
        "xml",
        lambda env: env.choice("NAME", ("json", "console"), "json"),
        "must be one of json, console; it is 'xml'.",
    ),
    ("maybe", lambda env: env.flag("NAME", default=False), "NAME must be 1 or 0; it is 'maybe'."),
    ("0", lambda env: env.integer("NAME", 5, least=1, most=9), "a whole number from 1 to 9; it is '0'."),
    ("1.5", lambda env: env.integer("NAME", 5, least=1, most=9), "a whole number from 1 to 9; it is '1.5'."),
    ("٣", lambda env: env.integer("NAME", 5, least=1, most=9), "a whole number from 1 to 9"),
    ("61", lambda env: env.seconds("NAME", 5, least=0.1, most=60), "seconds from 0.1 to 60; it is '61'."),
    ("nan", lambda env: env.seconds("NAME", 5, least=0.1, most=60), "seconds from 0.1 to 60; it is 'nan'."),
    ("soon", lambda env: env.seconds("NAME", 5, least=0.1, most=60), "seconds from 0.1 to 60; it is 'soon'."),
    ("localhost", lambda env: env.address("NAME"), "NAME must be host:port, such as 127.0.0.1:5001"),
    ("localhost:99999", lambda env: env.address("NAME"), "NAME must be host:port"),
    ("http://localhost:1", lambda env: env.address("NAME"), "NAME must be host:port"),
    ("user@localhost:1", lambda env: env.address("NAME"), "NAME must be host:port"),
    ("localhost:1/path", lambda env: env.address("NAME"), "NAME must be host:port"),
    ("/nowhere/at/all", lambda env: env.file("NAME"), "NAME must be a file that can be read"),
    ("/", lambda env: env.file("NAME"), "NAME must be a file that can be read"),
]


@pytest.mark.parametrize(("value", "read", "rule"), BROKEN)
def test_broken_value_is_refused_by_name_and_rule(
    value: str, read: Callable[[Environment], object], rule: str
) -> None:
    """The error names the variable and the rule, and quotes a value that is no secret."""
    with pytest.raises(SettingsError) as refused:
        read(Environment({"NAME": value}))
    assert "NAME" in str(refused.value)
    assert rule in str(refused.value)


def test_url_with_a_password_is_never_quoted() -> None:
    """A URL of the wrong kind is refused without showing what is in it."""
    env = Environment({"NATS_URL": "http://sender:hunter2@localhost"})
    with pytest.raises(
        SettingsError, match=r"NATS_URL must be a URL that starts with nats:// or tls://\."
    ) as refused:
        env.url("NATS_URL", ("nats", "tls"))
    assert "hunter2" not in str(refused.value)


def test_values_are_read(tmp_path: Path) -> None:
    """Each reader gives its value, trimmed."""
    file = tmp_path / "token"
    file.write_text("x")
    texts = {"T": " text ", "C": "console", "F": "Yes"}
    env = Environment({**texts, "I": "-3", "S": "2.5", "A": "[::1]:5001", "U": "nats://h:1", "P": str(file)})
    assert (env.text("T"), env.choice("C", ("json", "console"), "json"), env.flag("F", default=False)) == (
        "text",
        "console",
        True,
    )
    assert (env.integer("I", 0, least=-5, most=5), env.seconds("S", 1, least=0, most=9)) == (-3, 2.5)
    assert (env.address("A"), env.url("U", ("nats",)), env.file("P")) == (
        Address("::1", 5001),
        "nats://h:1",
        file,
    )


def test_absent_values_take_their_defaults() -> None:
    """An empty variable counts as absent."""
    env = Environment({"T": ""})
    assert (env.text("T", "usual"), env.optional_text("T"), env.flag("F", default=True)) == (
        "usual",
        None,
        True,
    )
    assert (env.integer("I", 7, least=1, most=9), env.seconds("S", 1.5, least=1, most=9)) == (7, 1.5)
    assert (str(env.address("A", "127.0.0.1:0")), env.optional_address("A"), env.optional_file("P")) == (
        "127.0.0.1:0",
        None,
        None,
    )


def test_environment_knows_what_was_asked_for() -> None:
    """The names that a config reads can be held against a deployment's."""
    env = Environment({})
    env.optional_text("A")
    env.flag("B", default=False)
    assert env.names == {"A", "B"}


@pytest.mark.parametrize(
    ("address", "is_loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("10.0.0.1:1", False),
        ("sender:1", False),
    ],
)
def test_only_this_machine_is_loopback(address: str, *, is_loopback: bool) -> None:
    """Loopback are the addresses that no other machine can reach, and no names but localhost."""
    assert Address.parse(address).is_loopback is is_loopback


@pytest.mark.parametrize("text", ["127.0.0.1:5001", "[::1]:5001", "sender:0"])
def test_address_is_written_as_it_is_read(text: str) -> None:
    """The text of an address is the one that it was parsed from."""
    assert str(Address.parse(text)) == text
