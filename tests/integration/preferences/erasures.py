"""People who are erased in tests, and what is left of them in the preferences service's tables."""

from wedsync.broadcast.v1 import directory_pb2, preferences_pb2

from tests.integration.preferences.site import Metadata, Site, Someone
from tests.integration.shared.polling import until_equal


async def erase(
    site: Site, who: Someone, metadata: Metadata | None = None, request_id: str = ""
) -> directory_pb2.EraseRecipientResponse:
    """Erase somebody, in their own name unless another is given."""
    request = directory_pb2.EraseRecipientRequest(user_id=who.user_id, request_id=request_id)
    return await site.directory.EraseRecipient(request, metadata=metadata or site.person(who.user_id))


async def edited(site: Site, **fields: object) -> tuple[Someone, str]:
    """Somebody on a team who has settings of every kind, and the wedding."""
    person, colleague = await site.someone(**fields), await site.someone()
    wedding_id = await site.wedding(person, colleague)
    await site.edit(
        person,
        "critical_only",
        "role_settings",
        "wedding_filters",
        critical_only=True,
        role_settings=[preferences_pb2.RoleSetting(role=person.entry.role, muted_types=["trial.ending"])],
        wedding_filters=[preferences_pb2.WeddingFilter(wedding_id=wedding_id, muted=True)],
    )
    return person, wedding_id


async def left_of(site: Site, number: int) -> dict[str, int]:
    """How many rows of each kind there are about a number, besides its own."""
    tables = ("team_members", "wedding_filters", "role_settings", "preferences")
    statement = "SELECT count(*) FROM preferences.{} WHERE recipient_number = $1"
    return {each: await site.admin.fetchval(statement.format(each), number) for each in tables}


async def rows_of(site: Site, table: str, **where: object) -> int:
    """How many rows of a table have these values."""
    condition = " AND ".join(f"{name}::text = ${place}" for place, name in enumerate(where, 1))
    statement = f"SELECT count(*) FROM preferences.{table} WHERE {condition}"  # noqa: S608 names of ours
    return int(await site.admin.fetchval(statement, *map(str, where.values())))


async def settled(site: Site) -> None:
    """Return once nobody is to be told of any erasure any more."""
    await until_equal(0, lambda: site.admin.fetchval("SELECT count(*) FROM preferences.erasures"))
