"""The gRPC edge of PreferencesService, and who may call what of it."""

from typing import Final
from uuid import UUID

from typing_extensions import override
from wedsync.broadcast.v1 import preferences_pb2
from wedsync.broadcast.v1.preferences_pb2_grpc import PreferencesServiceServicer

from services.preferences.messages import preferences_message, recommended_message
from services.preferences.own_preferences import OwnPreferences
from shared.auth import current_identity
from shared.errors import PermissionDenied
from shared.rights import Right, any_person

RIGHTS: Final[dict[str, Right]] = {
    "GetPreferences": any_person(),
    "UpdatePreferences": any_person(),
    "ResetPreferences": any_person(),
    "GetRecommendedPreferences": any_person(),
}
"""Each method's row of product.md's table of rights."""


class PreferencesServicer(PreferencesServiceServicer):
    """People's own preferences."""

    def __init__(self, own_preferences: OwnPreferences) -> None:
        self._own_preferences = own_preferences

    @override
    async def GetPreferences(
        self, request: preferences_pb2.GetPreferencesRequest, context: object
    ) -> preferences_pb2.GetPreferencesResponse:
        found = await self._own_preferences.get(_caller())
        return preferences_pb2.GetPreferencesResponse(preferences=preferences_message(found))

    @override
    async def UpdatePreferences(
        self, request: preferences_pb2.UpdatePreferencesRequest, context: object
    ) -> preferences_pb2.UpdatePreferencesResponse:
        return await self._own_preferences.update(_caller(), request)

    @override
    async def ResetPreferences(
        self, request: preferences_pb2.ResetPreferencesRequest, context: object
    ) -> preferences_pb2.ResetPreferencesResponse:
        return await self._own_preferences.reset(_caller(), request)

    @override
    async def GetRecommendedPreferences(
        self, request: preferences_pb2.GetRecommendedPreferencesRequest, context: object
    ) -> preferences_pb2.GetRecommendedPreferencesResponse:
        return recommended_message(await self._own_preferences.get(_caller()))


def _caller() -> UUID:
    """Services have no preferences; the rights above let none in."""
    user_id = current_identity().user_id
    if user_id is None:
        raise PermissionDenied
    return user_id
