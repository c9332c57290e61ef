"""Dying while vouchers are made or a day is closed leaves all of it or nothing."""

from __future__ import annotations

import pytest

from tests.ledger.general.journal import Journal
from tests.ledger.making import ALICE, BANK
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.clock import business_date
from tongbao.ledger.general.days import approve_day, request_day
from tongbao.ledger.general.model import DayAction
from tongbao.ledger.general.proving import check_general_ledger
from tongbao.ledger.general.vouchers import build_vouchers, coverage


async def test_vouchers_whose_process_died_are_made_once(db):
    journal = Journal(db)
    await journal.commit((BANK, ALICE, 5))
    failpoints.arm("ledger.before_vouchers_commit:raise")
    with pytest.raises(SimulatedCrash):
        await build_vouchers(db, 1)
    failpoints.arm(None)
    assert (await coverage(db, 1)).covered_batch == 0
    assert await build_vouchers(db, 1) == 1
    assert await check_general_ledger(db, 1) == []


async def test_a_day_whose_closing_died_is_open_and_can_be_approved_again(db):
    today = business_date(db.clock.now())
    await Journal(db).commit((BANK, ALICE, 5, "t/a", today))
    request = await request_day(db, 1, DayAction.CLOSE, today, reason="test", actor="opr_a")
    failpoints.arm("ledger.before_day_commit:raise")
    with pytest.raises(SimulatedCrash):
        await approve_day(db, 1, request.id, actor="opr_b")
    failpoints.arm(None)
    covered = await coverage(db, 1)
    assert (covered.closed_through, covered.covered_batch) == (None, 0)
    await approve_day(db, 1, request.id, actor="opr_b")
    covered = await coverage(db, 1)
    assert (covered.closed_through, covered.covered_batch) == (today, 1)
    assert await check_general_ledger(db, 1) == []
