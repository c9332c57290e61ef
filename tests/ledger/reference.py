"""The ledger in its simplest form, one group at a time: what the real one must do."""

from __future__ import annotations

from tongbao.kernel.licence import Licence
from tongbao.kernel.money import AMOUNT_MAX
from tongbao.ledger.model import COUNTER_MAX
from tongbao.ledger.rules.chart import CHART, opening_refusal

NOT_RECORDED = {"hold_not_due": "in_flight", "id_out_of_order": "refused"}
IN_THE_FUTURE = 1 << 127  # no id of this century begins with a one


class Reference:
    def __init__(self):
        self.accounts, self.holds, self.seen, self.answers = {}, {}, set(), {}
        self.limits, self.states = {}, {}  # (floor, ceiling) and state, by account key
        self.seq = 0

    def submit(self, group, now):
        if group.id in self.answers:
            body, status, code = self.answers[group.id]
            if body != group.transfers:
                return "exists_different", "ledger.exists_different"
            return ("exists", None) if status == "created" else ("already_refused", code)
        if group.id in self.seen:  # as a transfer of another group
            return "exists_different", "ledger.exists_different"
        before = {key: [*four] for key, four in self.accounts.items()}
        holds, seen = {one: [*hold] for one, hold in self.holds.items()}, {*self.seen}
        code = self._decide(group, now)
        if code:
            self.accounts, self.holds, self.seen = before, holds, seen
        if code in NOT_RECORDED:
            return NOT_RECORDED[code], f"ledger.{code}"
        answer = ("refused", f"ledger.{code}") if code else ("created", None)
        self.seq += 0 if code else len(group.transfers)
        self.answers[group.id] = (group.transfers, *answer)
        return answer

    def _decide(self, group, now):
        if group.id.int >= IN_THE_FUTURE:
            return "id_out_of_order"
        for look in (self._shape, self._alone, self._enter):
            for t in group.transfers:
                if why := look(t, now):
                    return why
        return None

    def _shape(self, t, now):
        if t.amount is not None and t.amount < 1:
            return "amount_out_of_range"
        refusals = (opening_refusal(key, Licence.BANK) for key in (t.debit, t.credit) if key)
        return next((why.code.removeprefix("ledger.") for why in refusals if why), None)

    def _alone(self, t, now):
        if t.id.int >= IN_THE_FUTURE or t.id.int >> 64 != t.reference.int >> 64:
            return "id_out_of_order"
        if t.kind > 2:
            return None
        states = [self.states.get(key) for key in (t.debit, t.credit)]
        lowers = [CHART[t.debit.kind].side == "credit", CHART[t.credit.kind].side == "debit"]
        wrongs = {
            "amount_out_of_range": t.amount > AMOUNT_MAX,
            "expiry_past": t.expires_at and t.expires_at <= now,
            "currency_mismatch": t.debit.currency != t.credit.currency,
            "same_account": t.debit == t.credit,
            "account_closed": "closed" in states,
            "account_frozen": ("frozen", True) in zip(states, lowers, strict=True),
        }
        return next((why for why, wrong in wrongs.items() if wrong), None)

    def _enter(self, t, now):
        if t.id in self.seen:
            return "transfer_exists"
        self.seen.add(t.id)
        return self._move(t) if t.kind <= 2 else self._end(t, now)

    def _move(self, t):
        sides, amount = ((t.debit, 0), (t.credit, 2)), t.amount
        if t.at_most:
            amount = max(1, min(amount, *(self._room(key, side) for key, side in sides)))
        for key, side in sides:
            if self._room(key, side) < amount:
                lowers = (side == 0) == (CHART[key.kind].side == "credit")
                return "exceeds_balance" if lowers else "exceeds_ceiling"
            if self._of(key)[side + (t.kind == 1)] + amount > COUNTER_MAX:
                return "counter_overflow"
        if t.kind == 2:
            self.holds[t.id] = ["held", amount, t.debit, t.credit, t.expires_at]
        return self._add(t.debit, t.credit, t.kind == 1, amount)

    def _end(self, t, now):
        state, held, debit, credit, expires_at = self.holds.get(t.pending_id, ["missing"] + [0] * 4)
        due = bool(expires_at) and expires_at <= now
        if state != "held":
            return f"hold_{state}"
        if t.kind != 3:
            if t.kind == 5 and not due:
                return "hold_not_due"
        elif due or (t.amount or 0) > held:
            return "hold_expired" if due else "hold_exceeded"
        posted = (t.amount or held) if t.kind == 3 else 0
        if max(self._of(debit)[1], self._of(credit)[3]) + posted > COUNTER_MAX:
            return "counter_overflow"
        self.holds[t.pending_id][0] = {3: "already_posted", 4: "already_voided", 5: "expired"}[
            t.kind
        ]
        self._add(debit, credit, False, -held)
        return self._add(debit, credit, True, posted)

    def _of(self, key):
        return self.accounts.setdefault(key, [0, 0, 0, 0])

    def _add(self, debit, credit, posted, amount):
        for key, side in ((debit, 0), (credit, 2)):
            self._of(key)[side + posted] += amount

    def _room(self, key, side):
        """How much one side of the account may still take: up to its floor or its ceiling."""
        floor, ceiling = self.limits.get(key, (CHART[key.kind].floor, None))
        held_out, out, held_in, into = self._of(key)
        if CHART[key.kind].side == "debit":
            held_out, out, held_in, into, side = held_in, into, held_out, out, 2 - side
        if side == 0:
            return 10**30 if floor is None else into - out - held_out - floor
        return 10**30 if ceiling is None else ceiling - (into - out + held_in)
