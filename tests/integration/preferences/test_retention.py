"""How far back the directory's log goes, and that whoever follows it does with less."""

from datetime import timedelta
from uuid import uuid4

from wedsync.broadcast.v1 import directory_pb2

from tests.integration.preferences.site import Site
from tests.integration.shared.polling import until_equal

_DAYS = timedelta(days=7)


async def clean_up(site: Site, *, dry_run: bool = False) -> dict[str, int]:
    """What another service has it do, once all of it could be done: how much of each kind."""
    request = directory_pb2.CleanUpDirectoryRequest(dry_run=dry_run)
    counts: dict[str, int] = {}

    async def is_done() -> bool:
        answer = await site.directory.CleanUpDirectory(request, metadata=site.service("internal"))
        for each in answer.cleaned:
            counts[each.what] = counts.get(each.what, 0) + each.count
        return not any(each.error for each in answer.cleaned)

    await until_equal(True, is_done)
    return counts


async def age(site: Site) -> int:
    """All that is in the log was said more than a week ago; how much that is."""
    await site.admin.execute(
        "UPDATE preferences.log SET at = now() - $1::interval - interval '1 minute'", _DAYS
    )
    return int(await site.admin.fetchval("SELECT count(*) FROM preferences.log"))


async def test_the_log_goes_back_a_week(site: Site) -> None:
    """A dry run counts what is older, and removes nothing; what is said after it stays."""
    await site.someone()
    old = await age(site)
    await site.someone()
    young = int(await site.admin.fetchval("SELECT count(*) FROM preferences.log")) - old
    assert (await clean_up(site, dry_run=True))["log"] == old > 0
    assert (await clean_up(site))["log"] == old
    assert await site.admin.fetchval("SELECT count(*) FROM preferences.log") == young > 0
    assert await clean_up(site) == {"log": 0, "outbox": 0, "requests": 0}


async def test_a_team_change_that_was_told_is_forgotten_after_a_week(site: Site) -> None:
    """One that waits for an inbox is not."""
    wedding_id = await site.wedding(await site.someone())
    query = "SELECT count(*) FROM preferences.outbox WHERE key = $1 AND state = 'done'"
    keys = await site.admin.fetch("SELECT DISTINCT key FROM preferences.outbox ORDER BY key")
    key = next(row["key"] for row in keys if wedding_id in row["key"])
    await until_equal(1, lambda: site.admin.fetchval(query, key))
    await site.admin.execute("UPDATE preferences.outbox SET created_at = now() - interval '8 days'")
    due = await site.admin.fetchval(
        "SELECT count(*) FROM preferences.outbox WHERE state IN ('done', 'cancelled')"
    )
    assert (await clean_up(site, dry_run=True))["outbox"] == due
    assert (await clean_up(site))["outbox"] == due
    assert await site.admin.fetchval("SELECT count(*) FROM preferences.outbox WHERE key = $1", key) == 0


async def test_answers_go_when_they_hold_no_longer(site: Site) -> None:
    """The younger one stays, and is given again."""
    people = [await site.someone() for _ in range(2)]
    requests = [
        directory_pb2.UpsertRecipientsRequest(request_id=str(uuid4()), recipients=[each.entry])
        for each in people
    ]
    call, metadata = site.directory.UpsertRecipients, site.service("directory.write")
    _, answer = [await call(each, metadata=metadata) for each in requests]
    older = "UPDATE preferences.requests SET at = at - interval '24 hours' WHERE request_id = $1"
    await site.admin.execute(older, requests[0].request_id)
    assert (await clean_up(site, dry_run=True))["requests"] == (await clean_up(site))["requests"] == 1
    assert await call(requests[1], metadata=metadata) == answer


async def test_what_was_decided_before_the_log_begins_is_decided_anew(site: Site) -> None:
    """For all whom it is about, because a process that did not see it cannot say which of them have changed."""
    quiet, loud = await site.someone(), await site.someone()
    before = await site.resolve_users([quiet, loud])
    await site.edit(quiet, "system", system=False)
    await age(site)
    await site.someone()
    await clean_up(site)
    await site.restart()
    again = await site.reevaluate([quiet.number, loud.number], before)
    assert again.outcomes("in_app") == {
        quiet.number: "suppressed:category_muted",
        loud.number: "pending",
    }


async def test_a_service_that_starts_after_it_knows_everybody(site: Site) -> None:
    """Its index is made from the tables, and follows the log from where it ends."""
    people = [await site.someone() for _ in range(3)]
    await age(site)
    await clean_up(site)
    await site.restart()
    people.append(await site.someone())
    assert (await site.resolve_users(people)).targeted == len(people)
