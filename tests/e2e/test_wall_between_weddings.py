"""The wall, proven: every RPC, as every kind of caller, for all that can be asked for, against a table of its own."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import grpc
import pytest

from tests.e2e.client import Client
from tests.e2e.test_rights import TABLE
from tests.e2e.two_weddings import NOWHERE, World
from tests.e2e.wall_calls import Answer, Asking
from tests.e2e.wall_requests import FEW, KINDS, NO_KIND, Probe, asked, id_fields, methods, probes, request
from tests.e2e.wall_rules import RULES, UNSERVED
from tests.e2e.wall_table import Caller, Code, View, callers, not_known_yet

_AT_ONCE = 16
_LOOKS = 5
UNKNOWN = frozenset({"anonymous", "expired"})


@dataclass(frozen=True, slots=True)
class Question:
    """One call: what is asked, of which RPC, by whom."""

    rpc: str
    caller: Caller
    probe: Probe

    def __str__(self) -> str:
        return f"{self.rpc} {self.probe} as {self.caller.name}"

    @property
    def is_let_in(self) -> bool:
        """Whether product.md's table lets them call at all."""
        return self.caller.kind in TABLE[self.rpc]

    @property
    def view(self) -> View:
        """What exists for the caller here."""
        return RULES[self.rpc].view(self.caller) if self.is_let_in else View()

    @property
    def is_worth_asking(self) -> bool:
        """Whether it could be answered otherwise than the others, and leaves the world as it is."""
        if not self.is_let_in:
            return self.probe.names in FEW
        return not self.probe.path or RULES[self.rpc].probes(self.view, frozenset(self.probe.names))

    def twin(self) -> "Question":
        """The same with ids of nothing in the place of what exists for others only."""
        unused = iter([name for name in NOWHERE if name not in self.probe.names])
        visible = self.view.names | set(NOWHERE)
        names = tuple(name if name in visible else next(unused) for name in self.probe.names)
        return Question(self.rpc, self.caller, Probe(self.probe.path, names))


@dataclass(slots=True)
class Proof:
    """The world, who looks at it, and all that they were answered."""

    world: World
    asking: Asking
    callers: list[Caller]
    answers: dict[Question, Answer]

    def questions(self, caller: Caller) -> Iterator[Question]:
        """Everything that is worth asking as somebody."""
        for rpc in sorted(methods().keys() & RULES.keys()):
            questions = (Question(rpc, caller, probe) for probe in probes(rpc))
            yield from (question for question in questions if question.is_worth_asking)

    def bytes_of(self, question: Question) -> bytes:
        """The request."""
        message = request(question.rpc, self.world, question.caller, question.probe)
        return message.SerializeToString(deterministic=True)

    async def ask(self, question: Question) -> Answer:
        """The answer now."""
        metadata = question.caller.metadata
        return await self.asking.ask(question.rpc, metadata, self.bytes_of(question))

    async def ask_all(self) -> None:
        """Ask everything once. Everybody asks one thing after the other, many people at the same time."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def ask_as(caller: Caller) -> None:
            for question in self.questions(caller):
                async with room:
                    self.answers[question] = await self.ask(question)

        await asyncio.gather(*map(ask_as, self.callers))

    def masked(self, question: Question, answer: Answer) -> Answer:
        """An answer as if other ids had been asked for."""
        return answer.without([self.world.id_of(name) for name in question.probe.names], question.rpc)


@pytest.fixture(scope="module")
async def proof(client: Client, world: World) -> AsyncIterator[Proof]:
    """Every answer about the two weddings."""
    async with Asking(client) as asking:
        proof = Proof(world, asking, callers(client), {})
        await proof.ask_all()
        yield proof


def test_every_rpc_has_a_rule() -> None:
    """A new one without a rule fails by its name, and so does an id of which nobody has said what it is."""
    assert methods().keys() == RULES.keys()
    unknown = {
        f"{rpc}: {'.'.join(path)}"
        for rpc, method in methods().items()
        for path, field in id_fields(method.input_type)
        if field.name not in KINDS.keys() | NO_KIND
    }
    assert unknown == set()


def _expected(question: Question, world: World) -> frozenset[Code]:
    if question.caller.name in UNKNOWN:
        return frozenset({Code.UNAUTHENTICATED})
    if not question.is_let_in:
        return frozenset({Code.PERMISSION_DENIED})
    if question.rpc in UNSERVED:
        return frozenset({Code.UNIMPLEMENTED})
    message = request(question.rpc, world, question.caller, question.probe)
    return RULES[question.rpc].expected(question.caller, question.view, asked(world, message))


async def test_everybody_is_answered_as_the_table_says(proof: Proof) -> None:
    """By status: without a good token, without the right, beyond reach, not there, or served."""
    wrong = [
        f"{question}: {answer.code.name}, not {'/'.join(code.name for code in expected)}: {answer.message}"
        for question, answer in proof.answers.items()
        if answer.code not in (expected := _expected(question, proof.world))
    ]
    assert wrong == [], "\n".join(wrong)


async def test_nothing_comes_back_but_what_may(proof: Proof) -> None:
    """No id, address or text that is not for this caller is anywhere in the bytes of an answer."""
    secrets = proof.world.secrets()
    leaks = [
        f"{question}: {sorted(found)}"
        for question, answer in proof.answers.items()
        if (found := answer.secrets(secrets, proof.bytes_of(question)) - question.view.secrets)
    ]
    assert leaks == [], "\n".join(leaks)


async def test_what_may_be_seen_is_seen(proof: Proof) -> None:
    """An inbox has all of its broadcasts and a broadcast its text: what is looked for above can be found."""
    secrets = {name: value for name, value in proof.world.secrets().items() if name.startswith("text of ")}
    wrong, seen = [], set[str]()
    for question, answer in proof.answers.items():
        shows = RULES[question.rpc].shows
        if shows is None or answer.code is not Code.OK:
            continue
        message = request(question.rpc, proof.world, question.caller, question.probe)
        expected = shows(question.view, asked(proof.world, message))
        if (found := answer.secrets(secrets, b"")) != expected:
            wrong.append(f"{question}: {sorted(found)}, not {sorted(expected)}")
        seen |= found
    assert wrong == [], "\n".join(wrong)
    assert seen == secrets.keys()


async def test_what_exists_elsewhere_looks_as_if_it_did_not_exist(proof: Proof) -> None:
    """Byte for byte, in whatever place of whatever request it is asked for, alone or among one's own."""
    twins = {question: twin for question in proof.answers if (twin := question.twin()) != question}
    different = [
        f"{question}: {proof.answers[question]} and {await proof.ask(twin)}"
        for question, twin in twins.items()
        if not await _look_alike(proof, question, twin)
    ]
    assert different == [], "\n".join(different)
    compared = {question.rpc for question in twins}
    assert compared == {
        rpc for rpc in methods() if any(set(each.names) - set(NOWHERE) for each in probes(rpc))
    }


async def test_what_exists_for_a_caller_does_not_look_so(proof: Proof) -> None:
    """Two answers that differ in more than the ids are told apart, or the test above would prove nothing."""
    admin = next(caller for caller in proof.callers if caller.name == "admin")
    path = ("broadcast_id",)
    there, nowhere = (
        Question("GetBroadcast", admin, Probe(path, (name,))) for name in ("change B", NOWHERE[0])
    )
    assert not await _look_alike(proof, there, nowhere)


async def _look_alike(proof: Proof, question: Question, twin: Question) -> bool:
    """Whether two answers are the same but for the ids; a badge may change between them, but not every time."""
    answers = proof.answers[question], proof.answers.get(twin) or await proof.ask(twin)
    for _ in range(_LOOKS):
        one, other = answers
        if proof.masked(question, one) == proof.masked(twin, other):
            return True
        answers = await proof.ask(question), await proof.ask(twin)
    return False


async def test_strangers_are_all_told_the_same(proof: Proof) -> None:
    """Without a good token every RPC, served or not, gives the same bytes whatever it is asked."""
    for name, reason in (("anonymous", "UNAUTHENTICATED"), ("expired", "TOKEN_EXPIRED")):
        told = {answer for question, answer in proof.answers.items() if question.caller.name == name}
        assert [answer.reason for answer in told] == [reason]


async def test_who_has_no_right_learns_nothing_of_a_request(proof: Proof) -> None:
    """An RPC tells all whom the table keeps out the same, whether what they send is right, or wrong, or no message."""
    different = []
    for rpc in methods():
        told = {
            answer
            for question, answer in proof.answers.items()
            if question.rpc == rpc and question.caller.name not in UNKNOWN and not question.is_let_in
        }
        kept_out = [each for each in proof.callers if each.kind and each.kind not in TABLE[rpc]]
        for caller in kept_out[:2]:
            told |= {await proof.asking.ask(rpc, caller.metadata, body) for body in (b"", b"\xff\xff")}
        if len(told) > 1:
            different.append(f"{rpc}: {told}")
    assert different == [], "\n".join(different)


async def test_what_is_not_served_is_listed(proof: Proof) -> None:
    """The list gets shorter with every RPC that is served, whose rule must say from then on how it answers."""
    unserved = {
        question.rpc
        for question, answer in proof.answers.items()
        if answer.code is grpc.StatusCode.UNIMPLEMENTED
    }
    assert unserved == UNSERVED
    assert {rpc for rpc, rule in RULES.items() if rule.expected is not_known_yet} <= UNSERVED
