"""The inventory of keys in the console: which there are and how old, and never a key."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.stage import Stage
from tests.surfaces.visitors import hire, reader
from tongbao.kernel.clock import real_now
from tongbao.surfaces.keys import pages


async def test_every_kind_of_key_is_listed_and_none_is_shown(shared_stage: Stage) -> None:
    stage = shared_stage
    desk = stage.platform.keys
    await stage.open_shop()
    masters = desk.kms.master_keys()
    async with reader(stage, await hire(stage)) as admin:
        page = await admin.get("/console/keys")

    assert page.status_code == 200
    for each in masters:
        assert each.id in page.text
    assert "In its time" in page.text
    assert "api_key.secret" in page.text
    stored = await stage.db.fetch("select secret_sealed from api_key", ())
    assert stored
    assert all(each[0].hex() not in page.text for each in stored)


@pytest.mark.parametrize(
    ("days", "state"), [(-1, "failed"), (0, "failed"), (59, "pending"), (61, "succeeded")]
)
def test_a_key_is_due_soon_and_then_overdue(days: int, state: str) -> None:
    now = real_now()

    assert pages._state(now + timedelta(days=days), now) == state


async def test_a_merchants_key_is_overdue_after_a_year(shared_stage: Stage) -> None:
    stage = shared_stage
    shop = await stage.open_shop()
    before = await pages.ages_of_keys(stage.db, real_now() - pages.ROLLED_EVERY)
    await stage.db.execute(
        "update api_key set created_at = created_at - interval '366 days' where merchant_id = $1",
        (shop.merchant.id,),
    )

    [after] = await pages.ages_of_keys(stage.db, real_now() - pages.ROLLED_EVERY)

    assert (before[0].overdue, after.overdue) == (0, 1)
    assert after.keys == before[0].keys
