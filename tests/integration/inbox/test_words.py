"""What is found in scripts that set no spaces between words, and in what was kept before it could be."""

from typing import Final

from services.inbox.domain import words_of
from tests.integration.inbox.processes import ROOT
from tests.integration.inbox.site import Site
from tests.integration.inbox.stores import Stores
from tests.integration.inbox.test_schema import BROADCAST, insert

MIGRATION: Final = next((ROOT / "services/inbox/migrations").glob("*_unspaced.sql")).read_text("utf-8")


async def test_words_without_spaces_are_found_wherever_they_stand(site: Site) -> None:
    """By what of them stands side by side; words with spaces still by their beginning alone."""
    amara = site.person()
    chinese = await site.send([amara], title="婚礼时间变更。请确认", message="OK")
    japanese = await site.send([amara], title="6月20日のケータリング", message="Plan B・雨天の会場")
    thai = await site.send([amara], title="งานแต่งงานเลื่อนเวลา", message="venue𠮷野")
    for search in ("时间", "婚", "更", "礼时间变", "变更 时间", "确"):
        assert await site.ids(amara, search=search) == [chinese], search
    for search in ("ケータ", "タリング", "6月", "20日 plan", "月 20", "会場 pl"):
        assert await site.ids(amara, search=search) == [japanese], search
    for search in ("แต่งงาน", "เวลา", "เลื่อน ven", "𠮷野", "venue𠮷", "野"):
        assert await site.ids(amara, search=search) == [thai], search
    for search in ("间时", "礼变更", "更请", "教堂", "リタ", "2日", "天会", "lan", "เวที", "enue"):
        assert await site.ids(amara, search=search) == [], search


async def test_what_was_kept_before_is_found_as_what_comes_now(stores: Stores) -> None:
    """Words that were kept with their runs whole are the same afterwards as if they came anew."""
    words = ["cafe", "шафер", "婚礼时间变更", "6月20日のケータリング", "งานแต่ง", "venue𠮷野", "雨"]
    admin, broadcast_id = stores.admin, BROADCAST["broadcast_id"]
    transaction = admin.transaction()
    await transaction.start()
    try:
        await insert(admin, "broadcasts", BROADCAST)
        await admin.execute(
            "UPDATE broadcasts SET words = array_to_tsvector($2::text[]) WHERE broadcast_id = $1",
            broadcast_id,
            words,
        )
        await admin.execute(MIGRATION)
        kept = await admin.fetchval(
            "SELECT tsvector_to_array(words) FROM broadcasts WHERE broadcast_id = $1", broadcast_id
        )
    finally:
        await transaction.rollback()
    assert sorted(kept) == words_of(words)
