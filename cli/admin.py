"""What an operator does by hand, or a deployment before it starts the services of a new version."""

import asyncio
import os

import typer

from cli import output
from cli.exits import ExitCode, Failure
from shared.errors import DependencyUnavailable
from shared.messaging import URL_SCHEMES, read_tls
from shared.provisioning import ProvisioningError
from shared.provisioning import provision as provision_streams
from shared.settings import Environment, SettingsError
from stack.errors import StackError
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


async def _provision(env: Environment) -> None:
    database_url = env.url("DATABASE_URL", ("postgresql", "postgres"))
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
