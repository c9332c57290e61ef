"""A ledger on a database of its own, in a firm that may hold funds."""

from __future__ import annotations

import pytest

from tongbao.infra.db import Db
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger


@pytest.fixture
def ledger(db: Db) -> Ledger:
    return Ledger(db, Licence.PAYMENT_INSTITUTION)
