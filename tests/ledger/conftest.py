"""A ledger on a database of its own, in a firm that may hold funds; in both of its modes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tongbao.infra.db import Db
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger


@pytest.fixture(params=["behind", "with_commit"])
def balances(request) -> str:
    return request.param


@pytest.fixture
async def ledger(db: Db, balances) -> AsyncIterator[Ledger]:
    opened = Ledger(db, Licence.PAYMENT_INSTITUTION, balances=balances)
    yield opened
    await opened.close()
