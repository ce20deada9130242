"""What the directory says has changed since a version, to those who keep decisions."""

from wedsync.broadcast.v1 import audience_pb2

from shared.audience import Audience
from tests.integration.preferences.site import Site


async def changes(site: Site, since_version: int) -> audience_pb2.ListChangesResponse:
    """What has changed since a version."""
    return await site.audience.ListChanges(
        audience_pb2.ListChangesRequest(since_version=since_version), metadata=site.service("internal")
    )


def people(response: audience_pb2.ListChangesResponse) -> list[int]:
    """The numbers of those who have."""
    return Audience.from_bytes(response.recipients).to_list()


async def test_nothing_has_changed_since_the_last_change(site: Site) -> None:
    """The version is that of the last answer, and nobody is named."""
    since = (await site.resolve_users([await site.someone()])).directory_version
    said = await changes(site, since)
    assert (said.directory_version, people(said), list(said.wedding_ids), said.anybody) == (
        since,
        [],
        [],
        False,
    )


async def test_who_edits_their_settings_is_named(site: Site) -> None:
    """As soon as the edit is accepted, and up to a version at which it counts."""
    one, other = await site.someone(), await site.someone()
    since = (await site.resolve_users([one, other])).directory_version
    await site.edit(other, "system", system=False)
    said = await changes(site, since)
    assert people(said) == [other.number]
    assert said.directory_version > since
    assert people(await changes(site, said.directory_version)) == []


async def test_a_wedding_whose_team_changes_is_named(site: Site) -> None:
    """Its broadcasts are bound by it, whoever of the team has changed."""
    one, two = await site.someone(), await site.someone()
    wedding_id = await site.wedding(one, two)
    since = (await site.resolve_users([one])).directory_version
    await site.set_team(wedding_id, one)
    assert list((await changes(site, since)).wedding_ids) == [wedding_id]


async def test_a_version_that_is_not_known_is_about_anybody(site: Site) -> None:
    """Of a log that was restored from before: nothing that was decided counts."""
    said = await changes(site, 2**40)
    assert (said.anybody, people_or_none(said)) == (True, [])


def people_or_none(response: audience_pb2.ListChangesResponse) -> list[int]:
    """Nobody is named when it may be anybody."""
    return people(response) if response.recipients else []


async def test_a_directory_that_was_read_anew_is_about_anybody(site: Site) -> None:
    """After a load by SQL nobody can say who is different."""
    since = (await site.resolve_users([await site.someone()])).directory_version
    await site.admin.execute("SELECT preferences.append_log('reload', '')")
    assert (await changes(site, since)).anybody
