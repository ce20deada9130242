"""What an operator does by hand, or a deployment before it starts the services of a new version."""

import asyncio
import json
import os
from typing import Annotated
from uuid import UUID

import typer
from wedsync.broadcast.v1.directory_pb2 import Recipient, UserType

from cli import output
from cli.exits import ExitCode, Failure
from cli.settings import Settings
from shared.errors import DependencyUnavailable, FieldViolation, InvalidField
from shared.messaging import URL_SCHEMES, read_tls
from shared.provisioning import ProvisioningError
from shared.provisioning import provision as provision_streams
from shared.settings import Environment, SettingsError
from shared.time_zones import NO_TIME_ZONE, is_time_zone
from shared.validation import RequestReader
from stack.errors import StackError
from stack.first_admin import FirstAdminRefused, Newcomer, UnknownPerson, make_first_admin
from stack.permissions import PROVISIONER
from stack.provision import migrate_services, provision_database

app = typer.Typer(help="For operators.", no_args_is_help=True)


@app.callback()
def admin() -> None:
    """For operators."""


@app.command()
def provision() -> None:
    """Make the suite's place on servers that are there already: roles, schemas, migrations, streams, consumers.

    Reads DATABASE_URL, NATS_URL, PROVISIONER_NATS_PASSWORD and a POSTGRES_…_PASSWORD for each service's login.
    Running it again does no harm, and is what a lost NATS store needs.
    """
    try:
        asyncio.run(_provision(Environment(os.environ)))
    except SettingsError as error:
        raise Failure(str(error), ExitCode.USAGE) from error
    except (StackError, ProvisioningError, DependencyUnavailable) as error:
        raise Failure(str(error), ExitCode.UNAVAILABLE) from error


@app.command()
def bootstrap(
    context: typer.Context,
    user: Annotated[UUID, typer.Option(help="The user id of the first admin.")],
    name: Annotated[str | None, typer.Option(help="Their name, if the directory does not know them.")] = None,
    time_zone: Annotated[
        str, typer.Option(help="Their time zone, if the directory does not know them.")
    ] = "UTC",
) -> None:
    """Make the first admin, once: somebody whom the directory knows, or with a name somebody new.

    Reads DATABASE_URL, which is the administrator's, and needs no service to run. Once there is an admin it refuses,
    with exit code 6, and changes nothing: further admins are made by UpsertRecipients.
    """
    newcomer = None if name is None else _newcomer(user, name, time_zone)
    try:
        made = asyncio.run(make_first_admin(_database_url(Environment(os.environ)), user, newcomer))
    except SettingsError as error:
        raise Failure(str(error), ExitCode.USAGE) from error
    except StackError as error:
        raise Failure(str(error), _code_of(error)) from error
    settings: Settings = context.obj
    if settings.json:
        print(json.dumps({"user_id": str(user), "number": made.number, "is_new": made.is_new}))
        return
    known = "new in the directory" if made.is_new else "known to the directory before"
    output.console.print(f"{user} is the first admin: recipient {made.number}, {known}.")


def _newcomer(user: UUID, name: str, time_zone: str) -> Newcomer:
    """By the rules of a directory entry, as UpsertRecipients has them. Raises Failure that names what is wrong."""
    entry = Recipient(
        user_id=str(user),
        display_name=name,
        role="admin",
        user_type=UserType.USER_TYPE_STAFF,
        tier="free",
        time_zone=time_zone,
    )
    try:
        RequestReader(Recipient).check(entry, entry.SerializeToString(), _zone_rule)
    except InvalidField as error:
        fields = tuple((each.field, each.description) for each in error.violations)
        raise Failure("The first admin breaks a rule of the directory.", ExitCode.INVALID, fields) from error
    return Newcomer(name, time_zone)


def _zone_rule(entry: Recipient) -> list[FieldViolation]:
    if is_time_zone(entry.time_zone):
        return []
    return [FieldViolation("time_zone", NO_TIME_ZONE)]


def _code_of(error: StackError) -> ExitCode:
    if isinstance(error, FirstAdminRefused):
        return ExitCode.CONFLICT
    return ExitCode.NOT_FOUND if isinstance(error, UnknownPerson) else ExitCode.UNAVAILABLE


def _database_url(env: Environment) -> str:
    return env.url("DATABASE_URL", ("postgresql", "postgres"))


async def _provision(env: Environment) -> None:
    database_url = _database_url(env)
    await provision_database(database_url, lambda name: env.text(f"{name.upper()}_PASSWORD"))
    for service, applied in (await migrate_services(database_url)).items():
        output.console.print(f"{service}: {', '.join(applied) or 'nothing to migrate'}")
    nats_url = env.url("NATS_URL", URL_SCHEMES)
    done = await provision_streams(
        nats_url,
        user=PROVISIONER,
        password=env.text("PROVISIONER_NATS_PASSWORD"),
        tls=read_tls(env, nats_url),
        replicas=env.integer("NATS_REPLICAS", 1, least=1, most=5),
    )
    output.console.print(f"JetStream: {', '.join(done) or 'nothing to change'}")
