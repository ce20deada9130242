"""Tokens of the stack's own key, as the services verify them."""

from pathlib import Path
from uuid import UUID

import pytest

from shared.auth import AuthSettings, SubjectKind, TokenVerifier
from shared.errors import TokenExpired, Unauthenticated
from stack.errors import StackError
from stack.tokens import AUDIENCE, ISSUER, TokenMint

ANNA = UUID("0d5ee5f7-3f0e-4d2b-9b1a-6a3f3e3c9a01")


@pytest.fixture
def mint(tmp_path: Path) -> TokenMint:
    """A mint with a fresh key."""
    return TokenMint(tmp_path)


async def _verifier(mint: TokenMint) -> TokenVerifier:
    return await TokenVerifier.open(AuthSettings(str(mint.jwks), ISSUER, AUDIENCE))


async def test_a_user_token_proves_a_person(mint: TokenMint) -> None:
    """A user's token carries who they are and no scope."""
    identity = await (await _verifier(mint)).verify(mint.mint_user_token(ANNA))
    assert (ANNA, frozenset()) == (identity.user_id, identity.scopes)


async def test_a_service_token_carries_its_scopes(mint: TokenMint) -> None:
    """A service account is known by name and has what it was given."""
    token = mint.mint_service_token("billing", ["broadcast.send", "broadcast.read"])
    identity = await (await _verifier(mint)).verify(token)
    assert (identity.kind, identity.subject) == (SubjectKind.SERVICE, "billing")
    assert frozenset({"broadcast.send", "broadcast.read"}) == identity.scopes


async def test_a_token_ends(mint: TokenMint) -> None:
    """Past its lifetime a token proves nothing."""
    with pytest.raises(TokenExpired):
        await (await _verifier(mint)).verify(mint.mint_user_token(ANNA, lifetime_s=-3600))


async def test_the_key_outlives_the_mint(mint: TokenMint, tmp_path: Path) -> None:
    """A second run of the stack accepts what the first one minted."""
    token = mint.mint_user_token(ANNA)
    assert (await (await _verifier(TokenMint(tmp_path))).verify(token)).user_id == ANNA


def test_who_reads_the_key_writes_nothing(mint: TokenMint, tmp_path: Path) -> None:
    """Any number of commands do so at once; only a public half that is missing or another's is written anew."""
    published, written = mint.jwks.read_text(), mint.jwks.stat()
    TokenMint.existing(tmp_path)
    found = mint.jwks.stat()
    assert (found.st_ino, found.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    mint.jwks.write_text("{}")
    TokenMint.existing(tmp_path)
    assert mint.jwks.read_text() == published


async def test_another_stack_is_a_stranger(mint: TokenMint, tmp_path: Path) -> None:
    """Two stacks have two keys."""
    other = TokenMint(tmp_path / "other")
    with pytest.raises(Unauthenticated):
        await (await _verifier(mint)).verify(other.mint_user_token(ANNA))


def test_secrets_are_private_and_the_public_half_holds_none(mint: TokenMint, tmp_path: Path) -> None:
    """The signing key and tokens are for their owner alone; the JWKS file has no private part."""
    token_file = mint.write_service_token("inbox", ["internal"], tmp_path / "tokens")
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "signing.pem", token_file)] == [0o600, 0o600]
    assert '"d"' not in mint.jwks.read_text()


def test_a_damaged_key_is_named(tmp_path: Path) -> None:
    """A broken file is a sentence that says which, and what to do."""
    (tmp_path / "signing.pem").write_text("nonsense")
    with pytest.raises(StackError, match=r"signing\.pem is damaged"):
        TokenMint(tmp_path)
