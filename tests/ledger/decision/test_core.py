"""The pure decision: against the reference ledger, and its rules one by one."""

from __future__ import annotations

from datetime import date, timedelta
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.ledger import drawing
from tests.ledger.decision.making import ending, group, new, pending, post, single, void
from tests.ledger.decision.world import CODES, LATEST, NOW, Poster, Store, linked_runs
from tests.ledger.drawing import BANK, FRONT, PAYABLE, WALLETS
from tests.ledger.reference import Reference
from tongbao.kernel.money import AMOUNT_MAX
from tongbao.ledger.decision import memory
from tongbao.ledger.decision.core import BookState, decide
from tongbao.ledger.decision.records import (
    REPEATED,
    TRANSFERS_MAX,
    AccountRow,
    batch_of,
    code_of,
    day_of,
    moment,
)
from tongbao.ledger.model import (
    COUNTER_MAX,
    AccountState,
    HoldMissing,
    Side,
    TransferFlags,
    TransferKind,
)

ALICE, BOB = WALLETS
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        ALICE: st.sampled_from([(0, 50), (-20, None), (-20, 80)]),
        BOB: st.sampled_from([(0, 10), (0, 200)]),
        BANK: st.sampled_from([(0, None), (-50, 100), (None, 150)]),
    },
)
STATES = st.fixed_dictionaries(
    {}, optional={key: st.sampled_from(["frozen", "closed"]) for key in (ALICE, PAYABLE, BANK)}
)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_batch_is_decided_as_the_reference_ledger_decides_group_after_group(data):
    limits = data.draw(LIMITS)
    states = data.draw(drawing.seldom(st.just({}), STATES, 4))
    store, reference, now = Store(limits, states), Reference(), NOW
    reference.limits, reference.states = limits, states
    poster = Poster(store)
    for _ in range(data.draw(st.integers(1, 5))):
        now += timedelta(hours=data.draw(st.sampled_from([0, 0, 1, 3])))
        groups, expected = [], []
        for _ in range(data.draw(st.integers(1, 6))):
            group = data.draw(drawing.groups(now, reference.holds))
            if group.id in {one.id for one in groups} - reference.answers.keys():
                break  # nothing is recorded yet: asked again later, the two would change places
            groups.append(group)
            expected.append(reference.submit(group, now))
        if data.draw(st.integers(0, 4)) == 0:
            poster = Poster(store)  # with an empty memory
        plan = poster.decide(groups, now)
        assert poster.commit(plan)
        assert poster.answers(plan) == expected
        created = [g for g, code in zip(groups, plan.decision.codes, strict=True) if code == 0]
        runs = [len(group.transfers) for group in created if group.transfers]
        assert linked_runs(plan.decision.journal) == runs
        compare(store, reference)


def compare(store, reference):
    untouched = {key: [0, 0, 0, 0] for key in store.ids}
    assert store.counters() == untouched | reference.accounts
    assert store.head.last_seq == reference.seq
    states = {"held": "held", "already_posted": "posted", "already_voided": "voided"}
    assert {UUID(bytes=one): hold.state for one, hold in store.holds.items()} == {
        one: states.get(hold[0], hold[0]) for one, hold in reference.holds.items()
    }


# The rules one by one: each history is decided as one batch and as one batch for each group.


class Book:
    """A book that answers at once."""

    def __init__(self, *, limits=None, states=None):
        self.store = Store(limits, states)
        self.poster = Poster(self.store)
        self.plan = None

    def submit(self, *groups, now=NOW, latest=LATEST):
        """Decide the groups as one batch and return what became of each."""
        self.plan = self.poster.decide(groups, now, latest)
        assert self.poster.commit(self.plan)
        return [
            status if code is None else code.removeprefix("ledger.")
            for status, code in self.poster.answers(self.plan)
        ]

    def of(self, key):
        return self.store.counters()[key]

    def rows(self):
        return [*self.store.journal.values()]


def asked(groups, *, limits=None, states=None, before=()):
    """Return what becomes of the groups, having seen that it is the same one by one."""
    together, apart = (Book(limits=limits, states=states) for _ in range(2))
    for book in (together, apart):
        assert {*book.submit(*before)} <= {"created"}
    answers = together.submit(*groups)
    assert [apart.submit(one)[0] for one in groups] == answers
    assert apart.rows() == together.rows()
    assert apart.store.holds == together.store.holds
    assert apart.store.counters() == together.store.counters()
    return answers


def fund(key=ALICE, amount=100):
    return group(single(amount, BANK, key))


HOLD = pending(10, ALICE, PAYABLE)


@pytest.mark.parametrize(
    "broken",
    [
        single(None, BANK, ALICE),
        single(1, None, ALICE),
        single(1, BANK, None),
        single(1, BANK, ALICE, pending_id=new()),
        single(1, BANK, ALICE, expires_at=NOW + timedelta(days=1)),
        replace(single(1, BANK, ALICE), code=""),
        ending(TransferKind.POST, HOLD, debit=ALICE),
        ending(TransferKind.POST, HOLD, expires_at=NOW),
        ending(TransferKind.POST, HOLD, at_most=True),
        ending(TransferKind.VOID, HOLD, amount=10),
        ending(TransferKind.EXPIRE, HOLD, amount=10),
        replace(ending(TransferKind.POST, HOLD), pending_id=None),
    ],
)
def test_parts_that_do_not_fit_the_kind_are_refused(broken):
    answers = asked([group(HOLD, broken), group(HOLD, id=new())], before=[fund()])
    assert answers == ["transfer_malformed", "created"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", 0),
        ("kind", 6),
        ("code", 0),
        ("code", -1),
        ("amount", 0),
        ("amount", -5),
        ("amount", AMOUNT_MAX + 1),
        ("debit", 0),
        ("debit", -7),
        ("debit", (1 << 40) + 999),
        ("debit", (2 << 40) + 1),
        ("credit", 5),
        ("expires_at", 1),
        ("flags", 2),
        ("pending_id", np.void(b"p" * 16)),
        ("reference", np.void(b"r" * 16)),
        ("id", np.void(bytes(16))),
    ],
)
def test_columns_are_trusted_no_more_than_groups(field, value):
    book = Book()
    plan = book.poster.decide([fund()])
    book.poster.state.revert(plan.decision)
    plan.batch.records[field] = value
    again = decide(book.poster.state, plan.batch, NOW, LATEST)
    assert again.codes[0] > 0
    assert not len(again.journal)
    assert decide(book.poster.state, as_before(plan), NOW, LATEST).codes[0] == 0


def as_before(plan):
    return batch_of(plan.groups, {BANK: (1 << 40) + 1, ALICE: (1 << 40) + 2}, {"test/leg": 7})


@pytest.mark.parametrize("amount", [0, -1, AMOUNT_MAX + 1, 10**30])
def test_an_amount_out_of_range_is_refused(amount):
    assert asked([group(single(amount, BANK, ALICE))]) == ["amount_out_of_range"]


def test_a_counter_stops_before_it_leaves_the_column():
    for side, other in ((BANK, PAYABLE), (ALICE, BANK)):
        book = Book()
        book.store.change(side, debits_posted=COUNTER_MAX - 5, credits_posted=COUNTER_MAX - 100)
        book.store.change(other)
        book.store.change(ALICE, floor=None)
        one_too_many = group(single(6, side, other))
        assert book.submit(one_too_many, group(single(5, side, other))) == [
            "counter_overflow",
            "created",
        ]
        assert book.submit(group(pending(1, side, other))) == ["created"]


def test_a_full_counter_of_what_is_posted_leaves_room_for_holds():
    book = Book()
    book.store.change(PAYABLE, credits_posted=COUNTER_MAX)
    book.store.change(BANK, debits_posted=COUNTER_MAX)
    held, paid = pending(5, BANK, PAYABLE), single(5, BANK, ALICE)
    assert book.submit(group(held), group(paid)) == ["created", "counter_overflow"]
    assert book.submit(group(single(5, ALICE, PAYABLE))) == ["exceeds_balance"]
    assert book.submit(fund(BOB), group(post(held)), group(void(held))) == [
        "counter_overflow", "counter_overflow", "created",
    ]  # fmt: skip


def test_the_end_of_a_hold_may_overflow_a_counter_too():
    book = Book()
    hold = pending(10, ALICE, PAYABLE)
    book.store.change(ALICE, debits_posted=COUNTER_MAX - 9, floor=None)
    assert book.submit(group(hold), group(post(hold)), group(post(hold, 9))) == [
        "created",
        "counter_overflow",
        "created",
    ]


def test_of_two_ends_the_first_that_fits_the_counter_happens():
    book = Book()
    hold = pending(10, ALICE, PAYABLE)
    book.store.change(ALICE, floor=None)
    book.submit(group(hold))
    book.store.change(ALICE, debits_posted=COUNTER_MAX - 9)
    book.poster = Poster(book.store)
    assert book.submit(group(post(hold)), group(post(hold, 9)), group(void(hold))) == [
        "counter_overflow",
        "created",
        "hold_already_posted",
    ]


def test_sums_beyond_64_bits_do_not_wrap_round():
    many = [group(single(AMOUNT_MAX, BANK, ALICE)) for _ in range(2500)]
    book = Book()
    answers = book.submit(*many[:10])
    assert {*answers} == {"created"}
    book.store.change(BANK, ceiling=None)
    assert {*book.submit(*many[10:])} == {"created", "counter_overflow"}
    created = COUNTER_MAX // AMOUNT_MAX
    assert book.of(BANK)[1] == created * AMOUNT_MAX == book.of(ALICE)[3]
    spend = [group(single(AMOUNT_MAX, ALICE, PAYABLE)) for _ in range(created + 2)]
    assert book.submit(*spend) == ["created"] * created + ["exceeds_balance"] * 2


def test_a_hold_counts_as_spent_and_the_rest_of_a_partial_post_is_released():
    hold = pending(70, ALICE, PAYABLE)
    groups = [
        group(hold),
        group(single(31, ALICE, PAYABLE)),
        group(post(hold, 50)),
        group(single(50, ALICE, PAYABLE)),
        group(single(1, ALICE, PAYABLE)),
    ]
    refused = "exceeds_balance"
    assert asked(groups, before=[fund()]) == ["created", refused, "created", "created", refused]


def test_money_that_is_only_promised_cannot_be_spent():
    groups = [group(pending(10, ALICE, BOB)), group(single(1, BOB, PAYABLE))]
    assert asked(groups, before=[fund()]) == ["created", "exceeds_balance"]


def test_a_hold_may_open_and_end_in_one_group():
    hold = pending(10, ALICE, PAYABLE)
    book = Book()
    assert book.submit(fund(), group(hold, post(hold, 4))) == ["created"] * 2
    assert book.of(ALICE) == [0, 4, 0, 100]
    [decided] = book.store.holds.values()
    assert (decided.state, decided.posted_amount) == ("posted", 4)
    assert [len(book.plan.decision.holds_opened), len(book.plan.decision.holds_ended)] == [1, 0]


def test_a_hold_ends_once_in_whatever_order_the_ends_come():
    hold, other = pending(10, ALICE, PAYABLE), pending(5, ALICE, PAYABLE)
    groups = [
        group(post(hold)),
        group(hold),
        group(void(hold)),
        group(post(hold)),
        group(post(other, 6)),
        group(post(other, 5)),
        group(void(other)),
    ]
    assert asked(groups, before=[fund(), group(other)]) == [
        "hold_missing",
        "created",
        "created",
        "hold_already_voided",
        "hold_exceeded",
        "created",
        "hold_already_posted",
    ]


def test_an_end_that_is_taken_back_with_its_group_leaves_the_hold_open():
    hold = pending(60, ALICE, PAYABLE)
    groups = [
        group(post(hold), single(90, ALICE, BOB)),
        group(post(hold, 10), single(91, ALICE, BOB)),
        group(post(hold, 10), single(90, ALICE, BOB)),
    ]
    assert asked(groups, before=[fund(), group(hold)]) == [
        "exceeds_balance",
        "exceeds_balance",
        "created",
    ]


def test_a_hold_expires_when_its_time_is_over_and_is_then_not_posted():
    hold = pending(10, ALICE, PAYABLE, expires_at=NOW + timedelta(hours=1))
    expire, early = ending(TransferKind.EXPIRE, hold), ending(TransferKind.EXPIRE, hold)
    book = Book()
    assert book.submit(fund(), group(hold), group(early)) == ["created", "created", "hold_not_due"]
    later = NOW + timedelta(hours=1)
    assert book.submit(group(post(hold)), group(expire), now=later) == ["hold_expired", "created"]
    assert book.submit(group(early), now=later) == ["hold_expired"]
    assert book.of(ALICE) == [0, 0, 0, 100]
    assert asked([group(pending(1, BANK, ALICE, expires_at=NOW))]) == ["expiry_past"]


def test_a_linked_group_happens_whole_or_not_at_all():
    groups = [
        group(single(10, ALICE, PAYABLE), single(1, ALICE, PAYABLE)),
        group(single(10, ALICE, PAYABLE)),
    ]
    assert asked(groups, before=[fund(amount=10)]) == ["exceeds_balance", "created"]


def test_later_transfers_of_a_group_may_spend_what_earlier_ones_brought():
    groups = [
        group(single(5, BOB, PAYABLE), single(5, BANK, BOB)),
        group(single(5, BANK, BOB), single(5, BOB, PAYABLE)),
    ]
    assert asked(groups) == ["exceeds_balance", "created"]


def test_a_frozen_account_receives_and_ends_its_holds_but_does_not_pay():
    book, hold = Book(), pending(10, ALICE, PAYABLE)
    book.submit(fund(), group(hold))
    book.store.change(ALICE, state=AccountState.FROZEN)
    book.poster = Poster(book.store)
    assert book.submit(
        group(single(1, ALICE, BOB)),
        group(pending(1, ALICE, BOB)),
        group(single(1, BANK, ALICE)),
        group(post(hold)),
    ) == ["account_frozen", "account_frozen", "created", "created"]


def test_a_frozen_asset_lets_nothing_out_on_its_credit_side():
    groups = [group(single(1, ALICE, BANK)), group(single(1, BANK, ALICE))]
    assert asked(groups, states={BANK: "frozen"}) == ["account_frozen", "created"]


def test_a_closed_account_takes_nothing():
    groups = [group(single(1, ALICE, BOB)), group(single(1, BOB, ALICE))]
    assert asked(groups, states={BOB: "closed"}) == ["account_closed"] * 2


@pytest.mark.parametrize(
    ("head", "code"),
    [({"frozen": True}, "book_frozen"), ({"stopped_because": "a breach"}, "book_stopped")],
)
def test_a_book_that_takes_nothing_answers_repeats_and_decides_nothing(head, code):
    book, one = Book(), fund()
    book.submit(one)
    book.store.head = replace(book.store.head, **head)
    book.poster = Poster(book.store)
    malformed = group(single(None, BANK, ALICE))
    assert book.submit(one, fund(), malformed) == ["exists", code, code]


def test_a_floor_on_a_debit_account_is_the_mirror_image():
    groups = [
        group(single(1, PAYABLE, BANK)),
        group(single(9, BANK, PAYABLE)),
        group(pending(8, PAYABLE, BANK)),
        group(single(2, PAYABLE, BANK)),
    ]
    answers = asked(groups, limits={BANK: (0, None)})
    assert answers == ["exceeds_balance", "created", "created", "exceeds_balance"]


def test_a_ceiling_counts_what_is_promised():
    groups = [
        group(single(30, BANK, ALICE)),
        group(pending(15, BANK, ALICE)),
        group(single(6, BANK, ALICE)),
        group(single(10, ALICE, BOB)),
        group(single(15, BANK, ALICE)),
        group(single(1, BANK, ALICE)),
    ]
    full = "exceeds_ceiling"
    assert asked(groups, limits={ALICE: (0, 50)}) == [
        "created", "created", full, "created", "created", full,
    ]  # fmt: skip
    assert asked(groups[:3], limits={BANK: (None, 50)}) == ["created", "created", full]


def test_what_a_hold_pays_out_makes_room_below_the_ceiling_and_above_the_floor():
    hold, back = pending(20, ALICE, BOB), pending(30, BOB, PAYABLE)
    groups = [
        group(single(31, BANK, ALICE)),
        group(post(hold, 15)),
        group(single(26, BANK, ALICE)),
        group(single(25, BANK, ALICE)),
        group(single(16, BOB, PAYABLE)),
        group(back, id=new()),
        group(single(15, BOB, PAYABLE)),
        group(single(1, BOB, PAYABLE)),
    ]
    full, short = "exceeds_ceiling", "exceeds_balance"
    limits = {ALICE: (0, 50), BOB: (0, 60)}
    before = [fund(amount=40), group(hold)]
    assert asked(groups, limits=limits, before=before) == [
        full, "created", full, "created", short, short, "created", short,
    ]  # fmt: skip


def test_at_most_moves_what_the_floor_and_the_ceiling_allow():
    def sweep(debit, credit):
        return group(single(AMOUNT_MAX, debit, credit, at_most=True))

    limits = {BOB: (0, 70), BANK: (0, 500)}
    groups = [
        sweep(ALICE, BOB),
        sweep(ALICE, BOB),
        sweep(ALICE, PAYABLE),
        sweep(ALICE, PAYABLE),
        sweep(PAYABLE, BANK),
        sweep(BANK, ALICE),
        sweep(BANK, PAYABLE),
    ]
    assert asked(groups, limits=limits, before=[fund(amount=100)]) == [
        "created", "exceeds_ceiling", "created", "exceeds_balance", "created", "created",
        "exceeds_ceiling",
    ]  # fmt: skip
    book = Book(limits=limits)
    book.submit(fund(amount=100), *groups)
    moved = [row["amount"] for row in book.rows()]
    assert moved == [100, 70, 30, 30, 430]
    assert len(book.plan.decision.requests) == 7  # what was asked is not in the transfers


def test_at_most_is_all_where_nothing_is_in_the_way():
    most = single(40, BANK, ALICE, at_most=True)
    book = Book()
    assert book.submit(group(most)) == ["created"]
    assert book.of(ALICE) == [0, 0, 0, 40]
    assert book.rows()[0]["flags"] == TransferFlags.AT_MOST


def test_a_hold_of_at_most_is_ended_for_what_was_held():
    most = pending(100, ALICE, PAYABLE, at_most=True)
    groups = [group(most), group(post(most, 41)), group(post(most, 40)), group(void(most))]
    assert asked(groups, before=[fund(amount=40)]) == [
        "created", "hold_exceeded", "created", "hold_already_posted",
    ]  # fmt: skip


def test_the_same_transfer_twice_is_refused_in_one_group_and_in_two():
    twice = single(1, BANK, ALICE)
    groups = [
        group(twice, twice, id=new()),
        group(twice, id=new()),
        group(single(1, BANK, BOB), twice),
    ]
    assert asked(groups) == ["transfer_exists", "created", "transfer_exists"]


def test_a_group_named_like_a_transfer_of_another_is_told_that_it_is_another():
    named = single(1, BANK, ALICE)
    groups = [
        group(single(1, BANK, BOB), named),
        group(named),
        group(single(1, BANK, BOB), id=named.id),
    ]
    assert asked(groups) == ["created", "exists_different", "exists_different"]
    assert asked([groups[0], groups[2]]) == ["created", "exists_different"]


def test_the_second_of_two_equal_groups_waits_for_the_first():
    one, short = fund(), group(single(1, BOB, PAYABLE))
    other = replace(one, transfers=(replace(one.transfers[0], amount=1),))
    book = Book()
    assert book.submit(one, short, one, short, other) == [
        "created", "exceeds_balance", "exists", "exceeds_balance", "exists_different",
    ]  # fmt: skip
    assert book.plan.decision.codes.tolist()[2:] == [REPEATED] * 3
    assert book.submit(one, short, other) == ["exists", "exceeds_balance", "exists_different"]


def test_an_id_belongs_to_its_reference_and_not_to_the_future():
    stranger = replace(single(1, BANK, ALICE), reference=UUID(int=FRONT + (1 << 64)))
    assert asked([group(stranger)]) == ["id_out_of_order"]
    soon = UUID(int=(1_772_377_500_000 << 80) + (7 << 76) + 1)  # LATEST
    late = UUID(int=(1_772_377_500_001 << 80) + 1)  # the very first id of the next millisecond
    for id_, code in ((soon, "created"), (late, "id_out_of_order")):
        book = Book()
        line = replace(single(1, BANK, ALICE), id=id_, reference=id_)
        assert book.submit(group(line), group(line, id=new())) == [
            code,
            "transfer_exists" if code == "created" else code,
        ]
        assert book.submit(group(id=id_)) == ["exists_different" if code == "created" else code]
        if code != "created":
            assert not book.store.answers  # so that the id can be used when its time has come
            later = LATEST + timedelta(milliseconds=1)
            assert book.submit(group(line), latest=later) == ["created"]


def test_what_is_older_than_the_archive_is_not_taken_any_more():
    book, old, new_one = Book(), single(1, BANK, ALICE), UUID(int=FRONT + (1 << 80))
    book.poster.state.archived_front = FRONT + 1 >> 64
    assert book.submit(group(old)) == ["created"]
    book.poster.state.archived_front += 1
    young = replace(single(1, BANK, ALICE), id=new_one, reference=new_one)
    assert book.submit(group(single(1, BANK, ALICE)), group(young)) == ["id_archived", "created"]
    assert book.submit(group(single(1, BANK, ALICE), id=UUID(int=new_one.int + 1))) == [
        "id_archived"
    ]
    assert len(book.store.answers) == 2


def test_a_group_longer_than_a_commit_is_refused():
    lines = [single(1, BANK, ALICE) for _ in range(TRANSFERS_MAX + 1)]
    assert asked([group(*lines), group(*lines[1:])]) == ["group_too_long", "created"]


def test_a_group_of_companions_alone_is_recorded():
    book, one = Book(), group()
    assert book.submit(one, fund(), one) == ["created", "created", "exists"]
    assert book.plan.decision.requests.tolist() == [0]
    assert book.plan.decision.seqs.tolist() == [0, 1, 0]
    assert book.submit(group()) == ["created"]
    assert len(book.plan.decision.spans) == 0


def test_a_line_carries_the_balances_and_the_business_day_of_shanghai():
    book, spend = Book(), single(30, ALICE, PAYABLE)
    dated = single(1, ALICE, PAYABLE, value_date=date(2026, 1, 5))
    book.submit(fund())
    book.submit(group(spend, dated), now=NOW + timedelta(seconds=1))
    first, second, third = book.rows()
    assert (first["debit_after"], first["credit_after"]) == (100, 100)
    assert (second["debit_after"], second["credit_after"]) == (70, 30)
    assert day_of(first["biz_date"]) == date(2026, 3, 1)
    assert day_of(second["biz_date"]) == day_of(second["value_date"]) == date(2026, 3, 2)
    assert day_of(third["value_date"]) == date(2026, 1, 5)
    assert moment(third["at"]) == NOW + timedelta(seconds=1)
    assert [row["flags"] for row in book.rows()] == [0, TransferFlags.LINKED, TransferFlags.FOLLOWS]


def test_a_closed_accounting_day_takes_no_more_entries():
    book = Book()
    book.store.head = replace(book.store.head, closed_through=date(2026, 3, 4))
    book.poster = Poster(book.store)
    book.submit(fund())
    book.submit(fund(), now=NOW + timedelta(days=9))
    first, second = book.rows()
    assert day_of(first["biz_date"]) == day_of(first["value_date"]) == date(2026, 3, 5)
    assert day_of(second["biz_date"]) == date(2026, 3, 10)


def test_a_decision_changes_nothing_until_it_is_applied_and_can_be_taken_back():
    hold = pending(10, ALICE, PAYABLE)
    store = Store()
    poster = Poster(store)
    assert poster.commit(poster.decide([fund(), fund(BOB), group(hold)]))
    before = everything(poster.state)
    plan = poster.decide([group(post(hold, 3)), group(single(5, ALICE, BOB), id=new()), group()])
    assert everything(poster.state) != before
    poster.state.revert(plan.decision)
    assert everything(poster.state) == before
    again = decide(poster.state, plan.batch, NOW, LATEST)
    assert everything(poster.state) == before
    assert again.journal.tobytes() == plan.decision.journal.tobytes()


def everything(state):
    loaded = [(one, *columns_of(state, one)) for one in range(1, 9)]
    return state.last_seq, {**state.holds}, [*state.transfers], [*state.groups], loaded


def columns_of(state, number):
    slot = state.slot_of((1 << 40) + number)
    if slot < 0 or number > 4:
        return ()
    return state.rows[slot].tolist(), int(state.touches[slot]), state.last[slot].tobytes()


def test_the_memory_says_what_it_lacks():
    store, hold, gone = Store(), pending(10, ALICE, PAYABLE), pending(5, ALICE, PAYABLE)
    poster = Poster(store)
    poster.commit(poster.decide([fund(), group(hold), group(id=new())]))
    fresh = BookState(store.take())
    groups = [group(post(hold)), group(post(gone)), group(pending(1, BANK, BOB))]
    batch = batch_of(groups, {BANK: store.account(BANK), BOB: store.account(BOB)}, CODES)
    assert fresh.missing_ids(batch) == []  # newer than anything recorded
    old = batch_of([group(hold), group(*groups[0].transfers, id=hold.id)], store.ids, CODES)
    assert fresh.missing_ids(old) == [hold.id]
    assert fresh.missing_holds(batch) == [hold.id, gone.id]
    fresh.load_holds([store.holds[hold.id.bytes]])
    assert fresh.missing_holds(batch) == [gone.id]
    named = {store.ids[key] for key in (BANK, BOB, ALICE, PAYABLE)}
    assert {*fresh.missing_accounts(batch)} == named
    fresh.load_accounts([store.accounts[one] for one in named])
    assert fresh.missing_accounts(batch) == []
    assert decide(fresh, batch, NOW, LATEST).codes.tolist() == [0, code_of(HoldMissing), 0]


def test_accounts_far_apart_are_found_and_rows_loaded_twice_keep_what_is_known():
    state = BookState(Store().take())
    numbers = [1, 513, 70_000, (1 << 26) - 1, 1 << 26, (1 << 40) - 1]
    accounts = [(1 << 40) + number for number in numbers]
    rows = [
        AccountRow(one, Side.CREDIT, None, None, AccountState.OPEN, "CNY", 0, 0, 0, 9, 1, new())
        for one in accounts
    ]
    state.load_accounts(rows[:3])
    state.load_accounts(rows)
    wanted = np.array([*accounts, 0, 5, (2 << 40) + 1, (1 << 40) + 2])
    assert state.slots_of(wanted).tolist() == [0, 1, 2, 3, 4, 5, -1, -1, -1, -1]
    assert [state.slot_of(one) for one in wanted.tolist()] == state.slots_of(wanted).tolist()
    state.rows[1, 3] = 77
    state.load_accounts(rows)
    assert state.rows[:6, 3].tolist() == [9, 77, 9, 9, 9, 9]


def test_what_was_forgotten_is_looked_up_and_nothing_happens_twice(monkeypatch):
    monkeypatch.setattr(memory, "_IDS_MAX", 10)
    monkeypatch.setattr(memory, "_FORGOTTEN", 5)
    book, asked_so_far = Book(), []
    for amount in range(1, 40):
        line = single(amount, BANK, ALICE)
        asked_so_far.append(group(line, id=new() if amount % 2 else line.id))
        assert book.submit(asked_so_far[-1]) == ["created"]
        again = asked_so_far[amount // 3]
        stolen = group(*again.transfers, id=new())
        assert book.submit(again, stolen) == ["exists", "transfer_exists"]
    state = book.poster.state
    assert max(len(state.transfers), len(state.groups)) < 20
    assert state.known_above > asked_so_far[10].id.bytes


def test_an_id_ahead_of_its_time_does_not_make_everything_be_looked_up(monkeypatch):
    monkeypatch.setattr(memory, "_IDS_MAX", 10)
    monkeypatch.setattr(memory, "_FORGOTTEN", 5)
    ahead = UUID(int=FRONT + (1 << 90))
    book = Book()
    book.submit(group(replace(single(1, BANK, ALICE), id=ahead, reference=ahead)))
    for _ in range(30):
        book.submit(fund())
    assert book.poster.state.known_above < ahead.bytes
    assert ahead.bytes in book.poster.state.transfers


def test_a_hold_that_ended_lately_is_not_forgotten_before_its_end_is_committed(monkeypatch):
    monkeypatch.setattr(memory, "_HOLDS_MAX", 10)
    monkeypatch.setattr(memory, "_FORGOTTEN", 5)
    book, holds = Book(), [pending(1, BANK, ALICE) for _ in range(10)]
    book.submit(*(group(hold) for hold in holds))
    under_way = book.poster.decide([group(post(holds[0]))])
    on_top = [book.poster.decide([group(pending(1, BANK, BOB))]) for _ in range(3)]
    assert holds[1].id.bytes not in book.poster.state.holds
    again = book.poster.decide([group(post(holds[0])), group(post(holds[1]))])
    for plan in (under_way, *on_top, again):
        assert book.poster.commit(plan)
    assert book.poster.answers(again) == [
        ("refused", "ledger.hold_already_posted"),
        ("created", None),
    ]
