"""Speaks for people with the stack's own key, and knows the people of the demo world by their first names."""

from uuid import UUID

import jwt

from cli.exits import ExitCode, Failure
from stack.errors import StackError
from stack.state import DEFAULT, StateFolder
from stack.tokens import TokenMint
from stack.world import CAST, demo_id


def resolve_id(name: str) -> str:
    """The UUID that `name` is, or that the demo world knows under it ("photographer", "wedding-1")."""
    try:
        return str(UUID(name))
    except ValueError:
        pass
    known = [member.name for member in CAST] + ["wedding-1"]
    if name not in known:
        raise Failure(f"{name!r} is neither a UUID nor one of the demo's {', '.join(known)}.", ExitCode.USAGE)
    return str(demo_id(name))


def resolve_author(name: str) -> str:
    """The user id of somebody of the demo; any other name as it is, because service accounts are called by theirs."""
    return resolve_id(name) if name in {member.name for member in CAST} else name


def caller_id(token: str) -> str:
    """The user id of the person whose token this is; the services verify it, this only reads it."""
    try:
        subject = jwt.decode(token, options={"verify_signature": False})["sub"]
        return str(UUID(subject))
    except (jwt.InvalidTokenError, KeyError, ValueError) as error:
        raise Failure("This token is not a person's: give --user.", ExitCode.USAGE) from error


def token_for_person(name: str) -> str:
    """A development token for a person, made with the key in `.stack`."""
    return _mint().mint_user_token(UUID(resolve_id(name)))


def token_for_service(name: str, scopes: list[str]) -> str:
    """A development token for a service account, made with the key in `.stack`."""
    return _mint().mint_service_token(name, scopes)


def _mint() -> TokenMint:
    try:
        return TokenMint.existing(StateFolder(DEFAULT).keys)
    except StackError as error:
        raise Failure(f"{error.problem} {error.remedy}", ExitCode.USAGE) from error
