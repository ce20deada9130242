"""Whoever asks is told all that is kept about them, from all services, or which of them could not be asked."""

import json
from collections import Counter
from uuid import uuid4

import grpc
from wedsync.broadcast.v1 import directory_pb2, preferences_pb2

from tests.integration.preferences.site import Metadata, Site, Someone
from tests.integration.shared.edge import refusal_of

Code = grpc.StatusCode


async def page(
    site: Site, who: Someone, token: str = "", metadata: Metadata | None = None
) -> directory_pb2.ExportRecipientResponse:
    """A page of what is kept about somebody, asked for by themselves unless somebody else is given."""
    request = directory_pb2.ExportRecipientRequest(user_id=who.user_id, page_token=token)
    return await site.directory.ExportRecipient(request, metadata=metadata or site.person(who.user_id))


async def pages(site: Site, who: Someone) -> list[directory_pb2.ExportRecipientResponse]:
    """All pages, in their order."""
    found = [await page(site, who)]
    while found[-1].next_page_token:
        found.append(await page(site, who, found[-1].next_page_token))
    return found


async def test_all_pages_of_all_services_come_one_after_the_other(site: Site) -> None:
    """Each once, also behind a page with nothing on it; the last has no token."""
    person = await site.someone()
    found = await pages(site, person)
    records = [each for part in found for each in part.records]
    assert Counter(each.service for each in records if each.service != "preferences") == {
        "inbox": 2,
        "sender": 2,
        "dispatcher": 2,
    }
    assert [json.loads(each.json) for each in records if each.service == "sender"] == [
        {"page": ""},
        {"page": "3:last"},
    ]
    assert {each.schema for each in found} == {"wedsync.broadcast.export/1"}


async def test_everything_that_is_kept_here_is_told(site: Site) -> None:
    """The entry, the settings of each kind, teams, and what waits for the audit log; and of others nothing."""
    colleague = await site.someone(display_name="Horst Other", email="horst@example.com")
    person = await site.someone(display_name="Mária Šáfrán")
    wedding_id = await site.wedding(person, colleague)
    await site.edit(
        person,
        "role_settings",
        "wedding_filters",
        role_settings=[preferences_pb2.RoleSetting(role="photographer", muted_types=["trial.ending"])],
        wedding_filters=[preferences_pb2.WeddingFilter(wedding_id=wedding_id, muted=True)],
    )
    site.inbox.sender.is_down = True
    await site.upsert(directory_pb2.Recipient(**_fields(person, role="florist")))
    told = (await page(site, person)).records
    kinds = {each.kind: json.loads(each.json) for each in told}
    assert kinds.keys() == {
        "recipient",
        "preferences",
        "role_setting",
        "wedding_filter",
        "team_membership",
        "audit_event",
    }
    entry = kinds["recipient"]
    assert (entry["display_name"], entry["email"], entry["phone"], entry["role"]) == (
        "Mária Šáfrán",
        "petra@example.com",
        "+12025550123",
        "florist",
    )
    assert entry["update_time"].endswith("Z")
    assert kinds["wedding_filter"] == {"wedding_id": wedding_id, "muted": True, "channels": []}
    assert kinds["team_membership"] == {"wedding_id": wedding_id}
    assert (kinds["audit_event"]["role_before"], kinds["audit_event"]["role_after"]) == (
        "photographer",
        "florist",
    )
    told_text = "".join(each.json for each in told)
    assert not [secret for secret in ("Horst", "horst@", colleague.user_id) if secret in told_text]


def _fields(person: Someone, **others: object) -> dict[str, object]:
    return {field.name: value for field, value in person.entry.ListFields()} | others


async def test_a_service_that_is_away_is_named_and_never_left_out(site: Site) -> None:
    """The page is UNAVAILABLE, and the same one can be asked for again."""
    person = await site.someone()
    first = await page(site, person)
    site.inbox.is_down = True
    refused = await refusal_of(page(site, person, first.next_page_token))
    assert (refused.code, "inbox" in refused.message) == (Code.UNAVAILABLE, True)
    site.inbox.is_down = False
    assert [each.service for each in (await page(site, person, first.next_page_token)).records] == ["inbox"]


async def test_a_page_token_is_good_for_its_person_alone(site: Site) -> None:
    """What another was given, or nobody, is refused by the name of its field."""
    person, other = await site.someone(), await site.someone()
    token = (await page(site, person)).next_page_token
    for wrong in (token[:-2], "x", f"{token}A"):
        refused = await refusal_of(page(site, person, wrong))
        assert (refused.code, refused.fields) == (Code.INVALID_ARGUMENT, ("page_token",))
    assert (await refusal_of(page(site, other, token))).code is Code.INVALID_ARGUMENT


async def test_admins_and_privacy_may_export_anybody(site: Site) -> None:
    """What comes out is the same as for the person; nobody is NOT_FOUND."""
    person, admin = await site.someone(), await site.someone(role="admin")
    own = (await page(site, person)).records
    for metadata in (site.person(admin.user_id), site.service("privacy")):
        assert (await page(site, person, metadata=metadata)).records == own
        nobody = directory_pb2.ExportRecipientRequest(user_id=str(uuid4()))
        refused = await refusal_of(site.directory.ExportRecipient(nobody, metadata=metadata))
        assert refused.code is Code.NOT_FOUND
