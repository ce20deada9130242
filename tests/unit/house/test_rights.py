"""Every RPC of the contract declares who may call it, and no right is declared for one that does not exist."""

from collections.abc import Mapping

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from wedsync.broadcast.v1 import (
    audience_pb2,
    directory_pb2,
    dispatcher_pb2,
    inbox_pb2,
    preferences_pb2,
    sender_pb2,
)

from services.dispatcher import servicer as dispatcher
from services.inbox import servicer as inbox
from services.preferences import audience_servicer, directory_servicer
from services.preferences import servicer as preferences
from services.sender import servicer as sender
from shared.rights import Right, rights_gap

DECLARED: list[tuple[ServiceDescriptor, Mapping[str, Right]]] = [
    (sender_pb2.DESCRIPTOR.services_by_name["SenderService"], sender.RIGHTS),
    (inbox_pb2.DESCRIPTOR.services_by_name["InboxService"], inbox.RIGHTS),
    (preferences_pb2.DESCRIPTOR.services_by_name["PreferencesService"], preferences.RIGHTS),
    (directory_pb2.DESCRIPTOR.services_by_name["DirectoryService"], directory_servicer.RIGHTS),
    (audience_pb2.DESCRIPTOR.services_by_name["AudienceService"], audience_servicer.RIGHTS),
    (dispatcher_pb2.DESCRIPTOR.services_by_name["DispatcherService"], dispatcher.RIGHTS),
]
FILES = (sender_pb2, inbox_pb2, preferences_pb2, directory_pb2, audience_pb2, dispatcher_pb2)


@pytest.mark.parametrize(("service", "rights"), DECLARED, ids=[service.name for service, _ in DECLARED])
def test_every_rpc_declares_its_right(service: ServiceDescriptor, rights: Mapping[str, Right]) -> None:
    """Nothing is missing, and nothing is left over from an RPC that was renamed."""
    assert not rights_gap(service, rights)


def test_every_service_of_the_contract_is_looked_at() -> None:
    """A new gRPC service cannot be added without its rights being checked here."""
    contract = {name for file in FILES for name in file.DESCRIPTOR.services_by_name}
    assert contract == {service.name for service, _ in DECLARED}
