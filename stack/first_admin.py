"""Makes the first admin, once, in the directory's own tables: nobody is there yet who could be allowed to call."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from shared.audience import Audience
from shared.queries import load
from stack.errors import StackError
from stack.provision import administrator

_QUERIES: Final = load(Path(__file__).with_name("first_admin.sql"))


class FirstAdminRefused(StackError):
    """There is an admin already, or this person cannot be one; nothing was changed."""


class UnknownPerson(StackError):
    """The directory does not know this person, and was not told who they are; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Who somebody is whom the directory may not know yet."""

    display_name: str
    time_zone: str


@dataclass(frozen=True, slots=True)
class FirstAdmin:
    """The first admin's recipient number, and whether the directory did not know them before."""

    number: int
    is_new: bool


async def make_first_admin(admin_url: str, user_id: UUID, newcomer: Newcomer | None) -> FirstAdmin:
    """Give the admin role to a person if nobody has it; `newcomer` is who they are, should they not be known.

    Any number may call this at once: one of them makes an admin. Services that run see it before their next answer.
    Raises FirstAdminRefused, UnknownPerson, and StackError when the administrator's database is not there or closed.
    """
    async with administrator(admin_url) as connection:
        try:
            async with connection.transaction():
                return await _make(connection, user_id, newcomer)
        except (asyncpg.UndefinedObjectError, asyncpg.UndefinedTableError) as error:
            raise StackError(
                f"There is no directory in this database: {error}", "Run `broadcast admin provision` first."
            ) from error
        except asyncpg.InsufficientPrivilegeError as error:
            raise StackError(
                f"This administrator may not write to the directory: {error}",
                "Use the DATABASE_URL with which it was provisioned.",
            ) from error


async def _make(connection: asyncpg.Connection, user_id: UUID, newcomer: Newcomer | None) -> FirstAdmin:
    await connection.execute(_QUERIES["act_as_directory"])
    await connection.execute(_QUERIES["take_turn"])
    if await connection.fetchval(_QUERIES["count_admins"]):
        raise FirstAdminRefused(
            "There is an admin already.",
            "An admin role is given by UpsertRecipients, with the scope directory.admin.",
        )
    known = await connection.fetchrow(_QUERIES["find_person"], user_id)
    if known is not None and known["is_erased"]:
        raise FirstAdminRefused(f"{user_id} was erased, for good.", "Name somebody else.")
    if known is not None:
        number = await connection.fetchval(_QUERIES["promote"], user_id)
    elif newcomer is not None:
        values = (user_id, newcomer.display_name, newcomer.time_zone)
        number = await connection.fetchval(_QUERIES["add"], *values)
    else:
        raise UnknownPerson(f"The directory does not know {user_id}.", "To make them known, add --name.")
    await connection.execute(_QUERIES["tell"], Audience.of([number]).to_bytes())
    return FirstAdmin(number, known is None)
