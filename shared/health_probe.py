"""Asks a service on this machine for its health, for container health checks: exit status 0 only when it is serving.

`python -m shared.health_probe SENDER_LISTEN` takes the address from the variable that the service itself listens by.
"""

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared.settings import Address, Environment, SettingsError
from shared.tls import Transport

_TIMEOUT_S = 2.0


def main(arguments: list[str]) -> int:
    """The exit status: 0 serving, 1 not serving or out of reach, 2 for a setting that is wrong."""
    try:
        status = _status(Environment(os.environ), arguments[0])
    except (IndexError, SettingsError) as error:
        print(error if arguments else __doc__, file=sys.stderr)
        return 2
    except grpc.RpcError as error:
        print(error, file=sys.stderr)
        return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(status))
    return 0 if status == health_pb2.HealthCheckResponse.SERVING else 1


def _status(env: Environment, variable: str) -> int:
    # From inside, whatever the address it is bound to and the host that its certificate is for.
    address = Address("localhost", env.address(variable).port)
    transport = Transport.read(env)
    credentials, name = transport.channel_credentials(variable, address), transport.own_name()
    with (
        grpc.insecure_channel(str(address))
        if credentials is None
        else grpc.secure_channel(
            str(address), credentials, [("grpc.ssl_target_name_override", name)] if name else None
        )
    ) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S).status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
