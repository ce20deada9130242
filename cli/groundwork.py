"""Does to the servers themselves what no service can: makes the suite's place on them, and the first admin."""

import asyncio
import os
from uuid import UUID

from wedsync.broadcast.v1.directory_pb2 import Recipient, UserType

from cli import output
from cli.exits import ExitCode, Failure
from shared.errors import DependencyUnavailable, FieldViolation, InvalidField
from shared.messaging import URL_SCHEMES, read_tls
from shared.provisioning import ProvisioningError
from shared.provisioning import provision as provision_streams
from shared.settings import Environment, SettingsError
from shared.time_zones import NO_TIME_ZONE, is_time_zone
from shared.validation import RequestReader
from stack.errors import StackError
from stack.first_admin import FirstAdmin, FirstAdminRefused, Newcomer, UnknownPerson, make_first_admin
from stack.permissions import PROVISIONER
from stack.provision import migrate_services, provision_database


def provision() -> None:
    """Make roles, schemas, streams and consumers, and migrate. Raises Failure."""
    try:
        asyncio.run(_provision(Environment(os.environ)))
    except SettingsError as error:
        raise Failure(str(error), ExitCode.USAGE) from error
    except (StackError, ProvisioningError, DependencyUnavailable) as error:
        raise Failure(str(error), ExitCode.UNAVAILABLE) from error


def bootstrap(user: UUID, name: str | None, time_zone: str) -> FirstAdmin:
    """Make the first admin: with a `name` somebody new, otherwise whom the directory knows. Raises Failure."""
    newcomer = None if name is None else _newcomer(user, name, time_zone)
    try:
        return asyncio.run(make_first_admin(_database_url(Environment(os.environ)), user, newcomer))
    except SettingsError as error:
        raise Failure(str(error), ExitCode.USAGE) from error
    except StackError as error:
        raise Failure(str(error), _code_of(error)) from error


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
