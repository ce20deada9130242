"""Makes the suite's place on servers that are there already: roles, schemas, migrations, streams and consumers.

`python -m deploy.provision` runs once before the services of a new version start; running it again does no harm.
"""

import asyncio
import os
import sys

from shared.errors import DependencyUnavailable
from shared.provisioning import ProvisioningError
from shared.provisioning import provision as provision_streams
from shared.settings import Environment, SettingsError
from stack.errors import StackError
from stack.permissions import PROVISIONER
from stack.provision import migrate_services, provision_database


async def provision(env: Environment) -> None:
    """Reads DATABASE_URL, NATS_URL, PROVISIONER_NATS_PASSWORD and a POSTGRES_…_PASSWORD for each service's login."""
    database_url = env.url("DATABASE_URL", ("postgresql", "postgres"))
    await provision_database(database_url, lambda name: env.text(f"{name.upper()}_PASSWORD"))
    for service, applied in (await migrate_services(database_url)).items():
        print(f"{service}: {', '.join(applied) or 'nothing to migrate'}")
    done = await provision_streams(
        env.url("NATS_URL", ("nats", "tls")),
        user=PROVISIONER,
        password=env.text("PROVISIONER_NATS_PASSWORD"),
        replicas=env.integer("NATS_REPLICAS", 1, least=1, most=5),
    )
    print(f"JetStream: {', '.join(done) or 'nothing to change'}")


def main() -> int:
    """The exit status: 0 done, 1 when a server is not there or refuses, 2 for a setting that is missing or wrong."""
    try:
        asyncio.run(provision(Environment(os.environ)))
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except (StackError, ProvisioningError, DependencyUnavailable) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
