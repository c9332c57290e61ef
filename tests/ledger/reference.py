"""The ledger in its simplest form, for well-formed groups: what the real one must do."""

from __future__ import annotations

from copy import deepcopy

from tongbao.kernel.licence import Licence
from tongbao.kernel.money import AMOUNT_MAX
from tongbao.ledger.chart import CHART, opening_refusal


class Reference:
    def __init__(self):
        self.accounts, self.holds, self.seen, self.answers = {}, {}, set(), {}

    def submit(self, group, now):
        if group.id in self.answers:
            body, status, code = self.answers[group.id]
            if body != group.transfers:
                return "exists_different", "ledger.exists_different"
            return ("exists", None) if status == "created" else (status, code)
        before = deepcopy((self.accounts, self.holds, self.seen))
        code = next((why for t in group.transfers if (why := self._enter(t, now))), None)
        if code:
            self.accounts, self.holds, self.seen = before
        if code == "hold_not_due":
            return "in_flight", "ledger.hold_not_due"
        answer = ("refused", f"ledger.{code}") if code else ("created", None)
        self.answers[group.id] = (group.transfers, *answer)
        return answer

    def _enter(self, t, now):
        if t.id in self.seen:
            return "transfer_exists"
        self.seen.add(t.id)
        why = self._move(t, now) if t.kind in ("single", "pending") else self._end(t, now)
        return why or next((code for key in self.accounts if (code := self._limit(key))), None)

    def _move(self, t, now):
        if not 0 < t.amount <= AMOUNT_MAX:
            return "amount_out_of_range"
        if t.expires_at and t.expires_at <= now:
            return "expiry_past"
        if t.debit.currency != t.credit.currency:
            return "currency_mismatch"
        for key in (t.debit, t.credit):
            if refusal := opening_refusal(key, Licence.BANK):
                return refusal.code.removeprefix("ledger.")
        if t.debit == t.credit:
            return "same_account"
        if t.kind == "pending":
            self.holds[t.id] = ["held", t.amount, t.debit, t.credit, t.expires_at]
        return self._add(t.debit, t.credit, t.kind == "single", t.amount)

    def _end(self, t, now):
        state, held, debit, credit, expires_at = self.holds.get(t.pending_id, ["missing"] + [0] * 4)
        due = bool(expires_at) and expires_at <= now
        if state != "held":
            return f"hold_{state}"
        if t.kind != "post":
            if t.kind == "expire" and not due:
                return "hold_not_due"
        elif due or (t.amount is not None and not 0 < t.amount <= held):
            return "hold_expired" if due else ("hold_exceeded", "amount_out_of_range")[t.amount < 1]
        ends = {"post": "already_posted", "void": "already_voided", "expire": "expired"}
        self.holds[t.pending_id][0] = ends[t.kind]
        self._add(debit, credit, False, -held)
        return self._add(debit, credit, True, (t.amount or held) if t.kind == "post" else 0)

    def _add(self, debit, credit, posted, amount):
        for key, side in ((debit, 0), (credit, 2)):
            self.accounts.setdefault(key, [0, 0, 0, 0])[side + posted] += amount

    def _limit(self, key):
        held, out, _, into = self.accounts[key]
        floor = CHART[key.kind].floor
        return "exceeds_balance" if floor is not None and into - out - held < floor else None
