"""The round that forgets what is over goes on under every licence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tongbao.infra.db import Db
from tongbao.infra.migrate import migrate
from tongbao.infra.tasks import Again, Lease
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.surfaces.housekeeping import KeepHouse, keep_house

MakeDb = Callable[..., Awaitable[Db]]


@pytest.mark.parametrize("licence", list(Licence))
async def test_a_round_ends_well_under_every_licence(make_db: MakeDb, licence: Licence) -> None:
    db = await make_db(migrated=False)
    await migrate(db, licence, "test")
    again = await keep_house(
        db, Ledger(db, licence), licence, KeepHouse(), Lease(new_id(), attempt=1)
    )
    assert again == Again(timedelta(minutes=1))
