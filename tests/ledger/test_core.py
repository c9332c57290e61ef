"""The pure decision: against the reference ledger, and its rules one by one."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.ledger import drawing
from tests.ledger.drawing import BANK, PAYABLE, WALLETS
from tests.ledger.reference import Reference
from tongbao.kernel.licence import Licence
from tongbao.kernel.money import AMOUNT_MAX
from tongbao.ledger.chart import CHART, opening_refusal
from tongbao.ledger.core import TRANSFERS_MAX, State, body_hash, decide
from tongbao.ledger.model import (
    COUNTER_MAX,
    NOBODY,
    AccountKey,
    AccountState,
    Group,
    HoldState,
    LedgerAccount,
    Transfer,
    TransferKind,
)

NOW = datetime(2026, 3, 1, 15, 59, 59, tzinfo=UTC)
ALICE, BOB = WALLETS


class Memory:
    """Keeps what decisions write, as the store would."""

    def __init__(self):
        self.ids, self.accounts, self.holds, self.lines, self.answers = {}, {}, {}, {}, {}

    def account(self, key, **changes):
        if key not in self.ids:
            number = self.ids[key] = len(self.ids) + 1
            kind = CHART[key.kind]
            owner = key.owner or NOBODY
            self.accounts[number] = LedgerAccount(
                1, number, key.kind, owner, key.currency, kind.side, kind.floor,
                AccountState.OPEN, 0, 0, 0, 0, NOW,
            )  # fmt: skip
        number = self.ids[key]
        self.accounts[number] = replace(self.accounts[number], **changes)
        return self.accounts[number]

    def state(self, group, **changes):
        unopenable = {}
        for transfer in group.transfers:
            for key in (transfer.debit, transfer.credit):
                if key is not None:
                    refusal = opening_refusal(key, Licence.BANK)
                    if refusal:
                        unopenable[key] = refusal
                    else:
                        self.account(key)
        return replace(
            State(self.accounts, self.ids, unopenable, self.holds, self.lines.keys()), **changes
        )

    def submit(self, group, now=NOW, **changes):
        if group.id in self.answers:
            body, result = self.answers[group.id]
            if body != body_hash(group.transfers):
                return "exists_different", "ledger.exists_different"
            return ("exists", None) if result.happened else (result.status, result.code)
        decision = decide(self.state(group, **changes), group, now)
        if decision.result.status != "in_flight":
            self.answers[group.id] = body_hash(group.transfers), decision.result
        writes = decision.writes
        assert decision.result.happened or not writes.transfers
        for hold in (*writes.holds_opened, *writes.holds_ended):
            self.holds[hold.pending_id] = hold
        for delta in writes.deltas:
            account = self.accounts[delta.account]
            self.accounts[delta.account] = replace(
                account,
                debits_pending=account.debits_pending + delta.debits_pending,
                debits_posted=account.debits_posted + delta.debits_posted,
                credits_pending=account.credits_pending + delta.credits_pending,
                credits_posted=account.credits_posted + delta.credits_posted,
            )
        self.lines |= {line.id: line for line in writes.transfers}
        assert [line.seq for line in writes.transfers] == [*range(1, len(writes.transfers) + 1)]
        return decision.result.status, decision.result.code

    def counters(self):
        return {
            key: [
                self.accounts[number].debits_pending,
                self.accounts[number].debits_posted,
                self.accounts[number].credits_pending,
                self.accounts[number].credits_posted,
            ]
            for key, number in self.ids.items()
        }


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_it_decides_as_the_reference_ledger_does(data):
    memory, reference, now = Memory(), Reference(), NOW
    for _ in range(data.draw(st.integers(1, 15))):
        now += timedelta(hours=data.draw(st.sampled_from([0, 0, 1, 3])))
        group = data.draw(drawing.groups(now, reference.holds))
        assert memory.submit(group, now) == reference.submit(group, now)
        untouched = {key: [0, 0, 0, 0] for key in memory.ids}
        assert memory.counters() == untouched | reference.accounts
        totals = [sum(column) for column in zip(*memory.counters().values(), strict=True)]
        assert totals[:2] == totals[2:]


def single(amount, debit, credit, **more):
    return Transfer(
        uuid4(), TransferKind.SINGLE, "test/leg", uuid4(), amount, debit, credit, **more
    )


def pending(amount, debit, credit, **more):
    return replace(single(amount, debit, credit, **more), kind=TransferKind.PENDING)


def ending(kind, hold, amount=None, **more):
    return Transfer(uuid4(), kind, "test/end", uuid4(), amount, pending_id=hold.id, **more)


def group(*transfers):
    return Group(uuid4(), 1, transfers)


def funded(amount=100):
    memory = Memory()
    assert memory.submit(group(single(amount, BANK, ALICE))) == ("created", None)
    return memory


HOLD = pending(10, ALICE, PAYABLE)


@pytest.mark.parametrize(
    "broken",
    [
        single(None, BANK, ALICE),
        single(1, None, ALICE),
        single(1, BANK, None),
        single(1, BANK, ALICE, pending_id=uuid4()),
        single(1, BANK, ALICE, expires_at=NOW + timedelta(days=1)),
        replace(single(1, BANK, ALICE), code=""),
        ending(TransferKind.POST, HOLD, debit=ALICE),
        ending(TransferKind.POST, HOLD, expires_at=NOW),
        ending(TransferKind.VOID, HOLD, amount=10),
        ending(TransferKind.EXPIRE, HOLD, amount=10),
        replace(ending(TransferKind.POST, HOLD), pending_id=None),
    ],
)
def test_parts_that_do_not_fit_the_kind_are_refused(broken):
    memory = funded()
    assert memory.submit(group(HOLD, broken)) == ("refused", "ledger.transfer_malformed")
    assert memory.submit(group(HOLD)) == ("created", None)


@pytest.mark.parametrize("amount", [0, -1, AMOUNT_MAX + 1, 10**30])
def test_an_amount_out_of_range_is_refused(amount):
    refused = ("refused", "ledger.amount_out_of_range")
    assert Memory().submit(group(single(amount, BANK, ALICE))) == refused


def test_a_counter_stops_before_it_leaves_the_column():
    memory = Memory()
    memory.account(BANK, debits_posted=COUNTER_MAX - 5)
    assert memory.submit(group(single(6, BANK, ALICE))) == ("refused", "ledger.counter_overflow")
    assert memory.submit(group(single(5, BANK, ALICE))) == ("created", None)


def test_a_hold_counts_as_spent_and_the_rest_of_a_partial_post_is_released():
    memory = funded(100)
    hold = pending(70, ALICE, PAYABLE)
    assert memory.submit(group(hold)) == ("created", None)
    refused = ("refused", "ledger.exceeds_balance")
    assert memory.submit(group(single(31, ALICE, PAYABLE))) == refused
    assert memory.submit(group(ending(TransferKind.POST, hold, 50))) == ("created", None)
    assert memory.counters()[ALICE] == [0, 50, 0, 100]
    assert memory.holds[hold.id].state is HoldState.POSTED
    assert memory.holds[hold.id].posted_amount == 50
    assert memory.submit(group(single(50, ALICE, PAYABLE))) == ("created", None)
    assert memory.submit(group(single(1, ALICE, PAYABLE))) == refused


def test_money_that_is_only_promised_cannot_be_spent():
    memory = funded(10)
    assert memory.submit(group(pending(10, ALICE, BOB))) == ("created", None)
    spend = single(1, BOB, PAYABLE)
    assert memory.submit(group(spend)) == ("refused", "ledger.exceeds_balance")


def test_a_hold_may_open_and_end_in_one_group():
    memory = funded()
    hold = pending(10, ALICE, PAYABLE)
    assert memory.submit(group(hold, ending(TransferKind.POST, hold, 4))) == ("created", None)
    assert memory.counters()[ALICE] == [0, 4, 0, 100]
    [decided] = memory.holds.values()
    assert (decided.state, decided.posted_amount) == (HoldState.POSTED, 4)


def test_a_linked_group_happens_whole_or_not_at_all():
    memory = funded(10)
    before = memory.counters()
    linked = group(single(10, ALICE, PAYABLE), single(1, ALICE, PAYABLE))
    assert memory.submit(linked) == ("refused", "ledger.exceeds_balance")
    assert memory.counters() == before | {PAYABLE: [0, 0, 0, 0]}


def test_later_transfers_of_a_group_may_spend_what_earlier_ones_brought():
    assert funded().submit(group(single(5, BANK, BOB), single(5, BOB, PAYABLE)))[0] == "created"
    spent_first = group(single(5, BOB, PAYABLE), single(5, BANK, BOB))
    assert funded().submit(spent_first) == ("refused", "ledger.exceeds_balance")


def test_a_frozen_account_receives_and_ends_its_holds_but_does_not_pay():
    memory = funded()
    hold = pending(10, ALICE, PAYABLE)
    memory.submit(group(hold))
    memory.account(ALICE, state=AccountState.FROZEN)
    assert memory.submit(group(single(1, ALICE, BOB))) == ("refused", "ledger.account_frozen")
    assert memory.submit(group(pending(1, ALICE, BOB))) == ("refused", "ledger.account_frozen")
    assert memory.submit(group(single(1, BANK, ALICE))) == ("created", None)
    assert memory.submit(group(ending(TransferKind.POST, hold))) == ("created", None)


def test_a_frozen_asset_lets_nothing_out_on_its_credit_side():
    memory = funded()
    memory.account(BANK, state=AccountState.FROZEN)
    assert memory.submit(group(single(1, ALICE, BANK))) == ("refused", "ledger.account_frozen")
    assert memory.submit(group(single(1, BANK, ALICE))) == ("created", None)


def test_a_closed_account_takes_nothing():
    memory = funded()
    memory.account(BOB, state=AccountState.CLOSED)
    assert memory.submit(group(single(1, ALICE, BOB))) == ("refused", "ledger.account_closed")
    assert memory.submit(group(single(1, BOB, ALICE))) == ("refused", "ledger.account_closed")


def test_a_frozen_book_decides_nothing():
    decided = Memory().submit(group(single(1, BANK, ALICE)), frozen=True)
    assert decided == ("in_flight", "ledger.book_frozen")


def test_a_floor_on_a_debit_account_is_the_mirror_image():
    memory = Memory()
    memory.account(BANK, floor=0)
    refused = ("refused", "ledger.exceeds_balance")
    assert memory.submit(group(single(1, PAYABLE, BANK))) == refused
    assert memory.submit(group(single(9, BANK, PAYABLE))) == ("created", None)
    assert memory.submit(group(pending(8, PAYABLE, BANK))) == ("created", None)
    assert memory.submit(group(single(2, PAYABLE, BANK))) == refused


def test_the_same_transfer_twice_in_one_group_is_refused():
    twice = single(1, BANK, ALICE)
    assert Memory().submit(group(twice, twice)) == ("refused", "ledger.transfer_exists")


def test_a_group_longer_than_a_commit_is_refused():
    lines = [single(1, BANK, ALICE) for _ in range(TRANSFERS_MAX + 1)]
    assert Memory().submit(group(*lines)) == ("refused", "ledger.group_too_long")
    assert Memory().submit(group(*lines[1:])) == ("created", None)


def test_a_line_carries_the_balances_and_the_business_day_of_shanghai():
    memory = funded(100)
    spend = single(30, ALICE, PAYABLE)
    memory.submit(group(spend), NOW + timedelta(seconds=1))
    line = memory.lines[spend.id]
    assert (line.debit_after, line.credit_after) == (70, 30)
    assert line.biz_date == line.value_date == date(2026, 3, 2)
    [first] = [line for line in memory.lines.values() if line.id != spend.id]
    assert (first.debit_after, first.biz_date) == (100, date(2026, 3, 1))


A_TRANSFER = Transfer(
    id=UUID(int=1),
    kind=TransferKind.PENDING,
    code="payment.captured/gross",
    reference=UUID(int=2),
    amount=1000,
    debit=AccountKey("channel_receivable", "CNY", UUID(int=3)),
    credit=AccountKey("merchant_payable", "CNY", UUID(int=4)),
    expires_at=NOW,
)


def test_the_fingerprint_of_a_body_never_changes():
    written_out = (
        b"tongbao.ledger.body/1\n"
        b'[["00000000-0000-0000-0000-000000000001","pending","payment.captured/gross",'
        b'"00000000-0000-0000-0000-000000000002","1000",'
        b'["channel_receivable","CNY","00000000-0000-0000-0000-000000000003"],'
        b'["merchant_payable","CNY","00000000-0000-0000-0000-000000000004"],'
        b"null,1772380799000000]]"
    )
    assert body_hash([A_TRANSFER]) == sha256(written_out).digest()


@pytest.mark.parametrize(
    "change",
    [
        {"id": UUID(int=9)},
        {"kind": TransferKind.SINGLE},
        {"code": "other/leg"},
        {"reference": UUID(int=9)},
        {"amount": 999},
        {"amount": None},
        {"debit": None},
        {"debit": AccountKey("channel_receivable", "CNY")},
        {"credit": AccountKey("merchant_payable", "USD", UUID(int=4))},
        {"pending_id": UUID(int=9)},
        {"expires_at": NOW + timedelta(microseconds=1)},
        {"expires_at": None},
    ],
)
def test_every_field_belongs_to_the_body(change):
    assert body_hash([replace(A_TRANSFER, **change)]) != body_hash([A_TRANSFER])


def test_the_order_of_transfers_belongs_to_the_body_and_the_zone_of_a_time_does_not():
    other = replace(A_TRANSFER, id=UUID(int=9))
    assert body_hash([A_TRANSFER, other]) != body_hash([other, A_TRANSFER])
    local = replace(A_TRANSFER, expires_at=NOW.astimezone())
    assert body_hash([local]) == body_hash([A_TRANSFER])
