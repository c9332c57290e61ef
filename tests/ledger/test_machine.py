"""The ledger on PostgreSQL does what the reference does, whatever is asked in whatever order."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from tests.ledger import drawing
from tests.ledger.reference import Reference
from tongbao.infra import db as database
from tongbao.kernel.clock import Clock
from tongbao.kernel.ids import derived_id
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import EXPIRED_CODE, Ledger
from tongbao.ledger.model import Group, Side, Transfer, TransferKind
from tongbao.ledger.queries import balance_of, sums
from tongbao.ledger.verify import verify

_DIFFERS = re.compile("(ledger.exists_different)_.*")


@pytest.fixture
def runner():
    with asyncio.Runner() as runner:
        yield runner


def test_any_history_ends_as_the_reference_says(runner, dsn):
    db = runner.run(database.connect(dsn, Clock()))
    books = count(1000)

    class LedgerMachine(RuleBasedStateMachine):
        """Every example has a book of its own in one database."""

        def __init__(self):
            super().__init__()
            self.book = next(books)
            self.ledger = Ledger(db, Licence.BANK)
            self.reference = Reference()
            self.submitted = []
            self.transfers = 0
            runner.run(self.ledger.open_book(self.book, actor="tests"))

        def submit(self, group):
            expected = self.reference.submit(group, db.clock.now())
            [result] = runner.run(self.ledger.submit([group]))
            # The door says in what a body differs, the reference only that it does.
            code = result.code and _DIFFERS.sub(r"\1", result.code)
            assert (result.status, code) == expected
            if result.status == "created":
                self.transfers += len(group.transfers)
                assert result.seq == (self.transfers if group.transfers else None)
            self.submitted.append(group)

        @rule(data=st.data())
        def ask(self, data):
            self.submit(data.draw(drawing.groups(db.clock.now(), self.reference.holds, self.book)))

        @precondition(lambda self: self.submitted)
        @rule(data=st.data())
        def ask_again(self, data):
            self.submit(data.draw(st.sampled_from(self.submitted)))

        @precondition(lambda self: self.submitted)
        @rule(data=st.data(), amount=st.integers(1, 9))
        def ask_for_something_else_under_the_same_id(self, data, amount):
            earlier = data.draw(st.sampled_from(self.submitted))
            other = [
                line if line.amount is None else replace(line, amount=amount)
                for line in earlier.transfers
            ]
            self.submit(replace(earlier, transfers=tuple(other)))

        @precondition(lambda self: self.reference.holds)
        @rule(
            data=st.data(),
            kind=st.sampled_from([TransferKind.POST, TransferKind.VOID]),
            part=st.booleans(),
        )
        def end_a_hold(self, data, kind, part):
            pending = data.draw(st.sampled_from(sorted(self.reference.holds)))
            amount = data.draw(st.integers(1, 60)) if part and kind is TransferKind.POST else None
            end = Transfer(
                data.draw(drawing.transfer_ids), kind, "test/end",
                drawing.REFERENCE, amount, pending_id=pending,
            )  # fmt: skip
            self.submit(Group(data.draw(drawing.group_ids), self.book, (end,)))

        @rule(hours=st.integers(1, 3))
        def let_time_pass(self, hours):
            db.clock.offset += timedelta(hours=hours)

        @rule()
        def expire(self):
            now = db.clock.now()
            for pending, (state, *_, at) in sorted(self.reference.holds.items()):
                if state == "held" and at and at <= now:
                    line = Transfer(
                        derived_id(pending, "expire"), TransferKind.EXPIRE, EXPIRED_CODE,
                        drawing.REFERENCE, pending_id=pending,
                    )  # fmt: skip
                    assert self.reference.submit(Group(line.id, self.book, (line,)), now)[1] is None
                    self.transfers += 1
            runner.run(self.ledger.expire_holds(now, 1000))

        def teardown(self):
            for key, (held, out, expected, into) in self.reference.accounts.items():
                balance = runner.run(balance_of(db, self.book, key))
                if balance.side is Side.CREDIT:
                    figures = into - out, held, expected
                else:
                    figures = out - into, expected, held
                assert (balance.posted, balance.held, balance.incoming) == figures
            trial = runner.run(sums(db, self.book))
            assert sum(line.debits_posted - line.credits_posted for line in trial) == 0
            report = runner.run(verify(db, books=[self.book]))
            assert report.is_sound, report.broken
            looked_at = {check.name: check.looked_at for check in report.checks}
            assert looked_at["sequence"] == self.transfers
            assert looked_at["holds"] == len(self.reference.holds)

    try:
        run_state_machine_as_test(
            LedgerMachine,
            settings=settings(
                max_examples=40,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        runner.run(db.close())
