"""The pure decision: against the reference ledger, and its rules one by one."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ledger import drawing
from tests.ledger.decision.world import NOW, Poster, Store, linked_runs
from tests.ledger.drawing import BANK, PAYABLE, WALLETS
from tests.ledger.reference import Reference

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


@settings(max_examples=300, deadline=None)
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
