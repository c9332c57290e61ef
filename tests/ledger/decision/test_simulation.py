"""A book through every accident: messages lost, doubled and late, writers that die or come back.

Each seed is a history of its own. A clerk asks for postings until it is answered; the wire between
them keeps, doubles, drops and mixes messages; writers decide ahead of their commits, die before or
after them, or go on without knowing that another has taken the book. The reference ledger takes
the groups one by one in the order they were committed, and must agree on everything.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import timedelta
from random import Random
from uuid import UUID

import pytest
from msgspec.structs import replace

from tests.ledger.decision.world import COMPANION, NOW, Poster, Store
from tests.ledger.drawing import BANK, FRONT, ODD, PAYABLE, WALLETS
from tests.ledger.reference import Reference
from tongbao.ledger.decision import memory
from tongbao.ledger.model import Group, Transfer, TransferKind

SEEDS = int(os.environ.get("TONGBAO_SIMULATION_SEEDS", "2000"))
ONLY = os.environ.get("TONGBAO_SIMULATION_SEED")
KEYS = [*WALLETS, PAYABLE, BANK]
LIMITS = [
    {},
    {WALLETS[0]: (0, 60), BANK: (0, None)},
    {WALLETS[1]: (-30, 90), BANK: (-500, 400), PAYABLE: (0, 300)},
]


class History:
    def __init__(self, seed):
        self.draw = Random(seed)
        limits = self.draw.choice(LIMITS)
        self.store, self.reference = Store(limits), Reference()
        self.reference.limits = limits
        self.now = NOW
        self.number = 0
        self.wire, self.asked, self.answers = [], [], {}
        self.pending = []
        self.poster, self.zombies, self.plans = Poster(self.store), [], []
        self.happened = Counter()

    def run(self):
        steps = {
            self.ask: 10, self.ask_again: 4, self.ask_for_another: 1, self.lose: 2,
            self.decide: 7, self.commit: 8, self.die: 1, self.come_back: 2, self.wait: 1,
        }  # fmt: skip
        for step in self.draw.choices([*steps], [*steps.values()], k=self.draw.randint(20, 80)):
            step()
        self.calm_down()
        self.compare()

    # The clerk

    def ask(self):
        group = self.group()
        self.asked.append(group)
        self.wire += [group] * self.draw.choice([1, 1, 1, 2])

    def ask_again(self):
        if self.asked:
            self.wire.append(self.draw.choice(self.asked))

    def ask_for_another(self):
        """The same id with another body."""
        if self.asked:
            one = self.draw.choice(self.asked)
            lines = tuple(
                replace(line, amount=77) if line.kind <= TransferKind.POST else line
                for line in one.transfers
            )
            self.wire.append(replace(one, transfers=lines))

    def group(self):
        lines = [self.line() for _ in range(self.draw.choice([1, 1, 1, 1, 2, 2, 3, 0]))]
        stood_for = lines and self.draw.random() < 0.6
        return Group(lines[0].id if stood_for else self.new_id(), 1, tuple(lines))

    def line(self):
        draw, id_ = self.draw, self.new_id()
        reference = UUID(int=id_.int >> 64 << 64 | 1)
        held = [one for one, hold in self.reference.holds.items() if hold[0] == "held"]
        open_ = (held if draw.random() < 0.7 else self.pending)[-4:]
        if open_ and draw.random() < 0.3:
            kind = TransferKind(draw.choice([3, 3, 3, 4, 5]))
            amount = draw.choice([None, None, draw.randint(1, 40)]) if kind == 3 else None
            return Transfer(id_, kind, "test/end", reference, amount, pending_id=draw.choice(open_))
        kind = TransferKind(draw.choice([1, 1, 2]))
        if kind == 2:
            self.pending.append(id_)
        keys = draw.sample(KEYS, 2) if draw.random() < 0.5 else [BANK, draw.choice(KEYS[:3])]
        if draw.random() < 0.03:
            keys[draw.randint(0, 1)] = draw.choice([*ODD, *KEYS])
        expires = self.now + timedelta(hours=draw.randint(1, 5))
        return Transfer(
            id_, kind, "test/leg", reference, draw.randint(1, 50), *keys,
            expires_at=expires if kind == 2 and draw.random() < 0.3 else None,
            at_most=draw.random() < 0.15,
        )  # fmt: skip

    def front(self):
        return FRONT + ((self.number // 3) << 80)

    def new_id(self):
        """Mostly in order; now and then an id that was used before."""
        self.number += 1
        if self.number > 5 and self.draw.random() < 0.02:
            self.happened["an id used twice"] += 1
            return self.draw.choice([one.id for one in self.asked] or [UUID(int=FRONT | 1)])
        return UUID(int=self.front() | self.number << 20 | self.draw.getrandbits(20))

    # The wire

    def lose(self):
        if self.wire:
            self.wire.pop(self.draw.randrange(len(self.wire)))
            self.happened["a message lost"] += 1

    # The writers

    def decide(self):
        """Take some of the messages, in whatever order, ahead of the commits under way."""
        if len(self.plans) == 2 or not self.wire:
            return
        self.draw.shuffle(self.wire)
        count = self.draw.randint(1, 6)
        groups, self.wire = self.wire[:count], self.wire[count:]
        plan = self.poster.decide(groups, self.now)
        created = [place for place, code in enumerate(plan.decision.codes.tolist()) if code == 0]
        plan.refused = ()
        if created and self.draw.random() < 0.2:
            self.happened["a companion refused"] += 1
            before = self.poster.state.last_seq - len(plan.decision.journal)
            self.poster.state.revert(plan.decision)
            assert self.poster.state.last_seq == before
            refused = [self.draw.choice(created)]
            plan = self.poster.decide(groups, self.now, refused=refused)
            plan.refused = refused
        plan.now = self.now
        self.plans.append(plan)

    def commit(self):
        if not self.plans:
            return
        fate = self.draw.choices(["well", "dies before", "dies after"], [20, 1, 1])[0]
        if fate == "dies before":
            self.happened[fate] += 1
            self.take_over()
            return
        plan = self.plans.pop(0)
        assert self.poster.commit(plan)
        self.check(plan)
        if fate == "dies after":
            self.happened[fate] += 1
            self.take_over()
            return
        for group, answer in zip(plan.groups, self.poster.answers(plan), strict=True):
            if self.draw.random() < 0.85:
                self.hear(group, answer)

    def die(self):
        self.happened["dies at rest"] += 1
        self.take_over()

    def take_over(self):
        """Another writer takes the book; the old one may go on without knowing."""
        if self.plans and self.draw.random() < 0.5:
            self.zombies.append((self.poster, self.plans))
        self.poster, self.plans = Poster(self.store), []

    def come_back(self):
        if self.zombies:
            self.happened["a zombie's commit"] += 1
            poster, plans = self.zombies.pop()
            assert not poster.commit(plans[0])

    def wait(self):
        self.now += timedelta(hours=self.draw.randint(1, 3))

    # What must hold

    def check(self, plan):
        """The reference takes the groups of the commit, one by one."""
        for place, (group, answer) in enumerate(
            zip(plan.groups, self.poster.answers(plan), strict=True)
        ):
            self.happened[answer] += 1
            if answer == ("in_flight", "ledger.in_flight"):
                continue  # it repeats what was not recorded: nothing became of it
            if place in plan.refused:
                assert group.id not in self.reference.answers
                self.reference.answers[group.id] = (group.transfers, "refused", COMPANION)
                continue
            expected = self.reference.submit(group, plan.now)
            if expected[0] in {"created", "refused"} and answer[0] in {"exists", "already_refused"}:
                expected = self.reference.submit(group, plan.now)  # answers are read afterwards
            assert answer == expected

    def hear(self, group, answer):
        if answer[0] != "in_flight":
            self.answers.setdefault((group.id, group.transfers), []).append(answer)

    def calm_down(self):
        """Ask again until everything is answered."""
        self.wire.clear()
        self.take_over()
        for _ in range(3):
            left = [one for one in self.asked if (one.id, one.transfers) not in self.answers]
            self.wire = [*left]
            while self.wire:
                self.decide()
                plan = self.plans.pop()
                assert self.poster.commit(plan)
                self.check(plan)
                for group, answer in zip(plan.groups, self.poster.answers(plan), strict=True):
                    self.hear(group, answer)

    def compare(self):
        untouched = {key: [0, 0, 0, 0] for key in self.store.ids}
        assert self.store.counters() == untouched | self.reference.accounts
        assert self.store.head.last_seq == self.reference.seq == len(self.store.journal)
        for (id_, transfers), answers in self.answers.items():
            status = {"created": "created", "exists": "created"}
            said = {status.get(answer[0], answer[0]) for answer in answers}
            assert len(said - {"already_refused"} or said) == 1
            if said == {"created"}:
                body, recorded, _ = self.reference.answers[id_]
                assert (body, recorded) == (transfers, "created")
                for line in transfers:
                    assert line.id.bytes in self.store.journal


def histories():
    return [int(ONLY)] if ONLY else range(SEEDS)


def test_nothing_is_lost_or_doubled_whatever_happens(monkeypatch):
    monkeypatch.setattr(memory, "_IDS_MAX", 90)
    monkeypatch.setattr(memory, "_HOLDS_MAX", 60)
    monkeypatch.setattr(memory, "_FORGOTTEN", 12)
    happened = Counter()
    for seed in histories():
        history = History(seed)
        try:
            history.run()
        except BaseException as failure:
            failure.add_note(f"replay it with TONGBAO_SIMULATION_SEED={seed}")
            raise
        happened += history.happened
    if not ONLY and SEEDS >= 2000:
        assert ACCIDENTS - happened.keys() == set()


@pytest.mark.parametrize("seed", range(20))
def test_a_long_batch_comes_out_as_its_groups_do_one_by_one(seed):
    history = History(seed)
    groups = {group.id: group for group in (history.group() for _ in range(300))}.values()
    together, apart = Store(history.store.limits), Store(history.store.limits)
    posters = Poster(together), Poster(apart)
    plan = posters[0].decide([*groups], NOW)
    assert posters[0].commit(plan)
    codes = []
    for group in groups:
        alone = posters[1].decide([group], NOW)
        assert posters[1].commit(alone)
        codes += alone.decision.codes.tolist()
    assert plan.decision.codes.tolist() == codes
    assert [*together.journal.values()] == [*apart.journal.values()]
    assert together.accounts == apart.accounts
    assert together.holds == apart.holds
    assert together.answers == apart.answers
    assert len(together.journal) > 50


ACCIDENTS = {
    "a message lost",
    "an id used twice",
    "a companion refused",
    "dies before",
    "dies after",
    "dies at rest",
    "a zombie's commit",
    ("created", None),
    ("exists", None),
    ("exists_different", "ledger.exists_different"),
    ("already_refused", "ledger.exceeds_balance"),
    ("in_flight", "ledger.hold_not_due"),
    *(
        ("refused", f"ledger.{code}")
        for code in (
            "exceeds_balance", "exceeds_ceiling", "transfer_exists", "same_account",
            "currency_mismatch", "account_kind_unknown", "hold_missing", "hold_already_posted",
            "hold_already_voided", "hold_expired", "hold_exceeded",
        )
    ),
}  # fmt: skip
