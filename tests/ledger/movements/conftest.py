"""A ledger with three books."""

from __future__ import annotations

import pytest

from tongbao.infra.db import Db
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger


@pytest.fixture
async def ledger(db: Db):
    ledger = Ledger(db, Licence.PAYMENT_INSTITUTION)
    for book in (2, 3):
        await ledger.open_book(book, actor="tests")
    yield ledger
    await ledger.close()
