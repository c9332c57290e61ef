"""The router of a process: it knows rules, accounts, prices and health, decides, and says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tongbao.infra.changes import ALL, Changes
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.lookups import Remembered
from tongbao.kernel.clock import business_date
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import TERMS
from tongbao.parties.price_plans.model import CardKind, PriceLine, PricePlan, charge_of, plan_at
from tongbao.parties.price_plans.queries import price_plans_of
from tongbao.payments.routing import _store as store
from tongbao.payments.routing.choosing import choose, settled, targets
from tongbao.payments.routing.health import new_breaker
from tongbao.payments.routing.model import (
    PLACE_TAKEN,
    AccountHealth,
    Asked,
    CardAttempt,
    Decision,
    Excluded,
    Gate,
    Heard,
    MethodUp,
    NoChannelLeft,
    NoChannelUp,
    Offer,
    Price,
    Reason,
    RoutingDecision,
    RoutingRuleSet,
    ShadowTally,
    fen_less,
)
from tongbao.payments.routing.rule_sets import RULES
from tongbao.payments.routing.rules import NO_RULES, Limit, RuleTable, compile_rules, read_rules
from tongbao.payments.routing.watch import Watch
from tongbao.rails.channels.accounts import ACCOUNTS, list_accounts, open_accounts
from tongbao.rails.channels.capabilities.authorisations import Authorising
from tongbao.rails.channels.contract.channel import Channel
from tongbao.rails.channels.contract.orders import PayMode

_READ_ANEW_S: Final = 60.0
_RESTING: Final = frozenset({Reason.DOWN, Reason.PROBING})

Whose = tuple[UUID, Mode]


class Account(Struct, frozen=True):
    """As much of an account as a decision needs."""

    id: UUID
    channel: str
    fee_ppm: int
    is_open: bool


class Terms(Struct, frozen=True):
    """A merchant's prices and channels in one mode, and all accounts of that mode."""

    plans: Sequence[PricePlan]
    own: Mapping[str, UUID]
    accounts: Sequence[Account]


class Offered(Struct, frozen=True):
    """The accounts that could take one kind of payment, and those that could not, with why."""

    fit: Sequence[Offer]
    unfit: Sequence[tuple[Offer, Reason]]


class LiveRouter:
    """Routes the payments of one process; `model.Router` says what it is asked."""

    def __init__(
        self,
        db: Db,
        channels: Mapping[str, Channel],
        watch: Watch,
        changes: Changes | None = None,
    ) -> None:
        self._db = db
        self._channels = channels
        self.watch = watch
        heard = changes or Changes(db)
        self._terms = Remembered(self._find, seconds=_READ_ANEW_S, changes=heard)
        self._terms.forget_with(TERMS, lambda merchant_id: [(merchant_id, mode) for mode in Mode])
        self._terms.forget_with(ACCOUNTS)
        self._rules = Remembered(self._find_rules, seconds=_READ_ANEW_S, changes=heard)
        self._rules.forget_with(RULES)
        self._compiled: dict[UUID, RuleTable] = {}
        self._in_use: Sequence[RoutingRuleSet] = ()

    async def settled(self, asked: Asked) -> Asked:
        """Return it with its channel named, unless its customer's code leaves a choice."""
        if not asked.among:
            return asked
        await self._know(asked.at)
        table = self._table(asked.mode, asked.at) or NO_RULES
        terms = await self._terms_of((asked.merchant_id, asked.mode))
        return settled(asked, self._offered(asked, table, terms).fit, terms.own)

    async def place(self, asked: Asked) -> Decision | None:
        """Decide; None where the channel is named and there are no rules.

        Raises:
            NoChannelLeft, NoChannelUp
        """
        await self._know(asked.at)
        table = self._table(asked.mode, asked.at)
        if table is None and asked.channel is not None:
            return None
        terms = await self._terms_of((asked.merchant_id, asked.mode))
        decision = self._decide(asked, table or NO_RULES, terms)
        if not decision.candidates:
            raise _refusal(decision)
        return self._shadowed(decision, terms)

    async def refresh(self) -> None:
        """Read anew how accounts stand and what of their quotas is used."""
        self.watch.forget()

    def writes(self, decision: Decision, attempt_id: UUID, now: datetime) -> tuple[Write, ...]:
        """Return the writes of a decision: quota, probe, and the log that says why."""
        asked, chosen = decision.asked, decision.chosen
        day, currency = business_date(asked.at), asked.money.currency
        limit = self._limit(decision)
        writes: list[Write] = []
        if chosen.is_probe:
            writes.append(Write(store.TAKE_PROBE, (chosen.account_id,), refusal=PLACE_TAKEN))
        if limit is not None and limit.counts:
            figures = (limit.day_amount, limit.day_count)
            counted = (chosen.account_id, day, currency, asked.money.amount, *figures)
            writes.append(Write(store.COUNT, counted, refusal=PLACE_TAKEN))
        row = RoutingDecision(
            book=asked.book,
            attempt_id=attempt_id,
            payment_id=asked.payment_id,
            merchant_id=asked.merchant_id,
            mode=asked.mode,
            rule_set_id=decision.rule_set_id,
            rule=decision.rule,
            manner=decision.manner,
            account_id=chosen.account_id,
            channel=chosen.channel,
            bin_class=decision.bin_class,
            candidates=list(decision.candidates),
            excluded=list(decision.excluded),
            shadow_id=decision.shadow,
            day=day,
            currency=currency,
            amount=asked.money.amount,
            is_counted=limit is not None and limit.counts,
            at=now,
            bin=asked.bin,
            card=asked.card,
            issuer=asked.issuer,
        )
        # The row of a quota is every payment's of its account: it is locked last, and briefly.
        return (Write(store.INSERT_DECISION, _args(row)), *writes)

    def ended(self, book: int, attempt_id: UUID) -> tuple[Write, ...]:
        """Return the write that frees an unpaid attempt's place in a quota, if it has one."""
        return (Write(store.FREE, (book, attempt_id)),)

    def heard(self, heard: Heard) -> None:
        """Take note of what became of a call."""
        self.watch.hear(heard)

    async def methods(self, asked: Asked, pay_modes: Sequence[PayMode]) -> list[MethodUp]:
        """Return the ways this payment could be made now, the most valuable first."""
        await self._know(asked.at)
        table = self._table(asked.mode, asked.at) or NO_RULES
        terms = await self._terms_of((asked.merchant_id, asked.mode))
        found: dict[tuple[str, PayMode], tuple[int, MethodUp]] = {}
        for pay_mode in pay_modes:
            decision = self._decide(replace(asked, pay_mode=pay_mode), table, terms)
            for each in decision.candidates:
                gate = Gate.PROBING if each.is_probe else Gate.UP
                up = MethodUp(each.channel, pay_mode, gate, each.success_ppm, each.latency_ms)
                found.setdefault((each.channel, pay_mode), (each.value, up))
        return [up for _, up in sorted(found.values(), key=lambda each: -each[0])]

    async def evaluate(self, asked: Asked, table: RuleTable) -> Decision:
        """Return what some rules would decide with what is known now; for drafts and replays."""
        await self._know(asked.at)
        return self._decide(asked, table, await self._terms_of((asked.merchant_id, asked.mode)))

    async def offers(self, asked: Asked, table: RuleTable) -> Sequence[Offer]:
        """Return the accounts that could take a payment by these rules."""
        terms = await self._terms_of((asked.merchant_id, asked.mode))
        return self._offered(asked, table, terms).fit

    async def health(self) -> list[AccountHealth]:
        """Return how every account stands, and what of its day is used."""
        now = self._db.clock.now()
        await self._know(now)
        watch = self.watch
        tables = {mode: self._table(mode, now) or NO_RULES for mode in Mode}
        found = []
        for row in await list_accounts(self._db):
            breaker = watch.breakers.get(row.id) or new_breaker(row.id)
            standing = watch.standings.get(row.id)
            used = {
                currency: figures
                for (account_id, currency), figures in watch.used.items()
                if account_id == row.id
            }
            facts = AccountHealth(
                account_id=row.id,
                channel=row.channel,
                mode=row.mode,
                number=row.merchant_number,
                gate=breaker.gate,
                since=breaker.since if breaker.version else None,
                why=breaker.why,
                rates=standing.rates if standing is not None else {},
                used=used,
                most=_day_limits(tables[row.mode], row.id, row.channel),
                is_open=row.id in {each.id for each in open_accounts([row], row.mode)},
            )
            found.append(facts)
        return found

    async def table_at(self, mode: Mode, at: datetime) -> RuleTable:
        """Return the rules in force at a moment from now on."""
        await self._know(at)
        return self._table(mode, at) or NO_RULES

    def _decide(self, asked: Asked, table: RuleTable, terms: Terms) -> Decision:
        offered = self._offered(asked, table, terms)
        watch = self.watch
        decision = choose(asked, table, offered.fit, watch.standings, watch.used)
        if not offered.unfit:
            return decision
        unfit = {offer.account_id: reason for offer, reason in offered.unfit}
        meant = targets(table.first_rule(asked), asked, [offer for offer, _ in offered.unfit])
        left_out = [Excluded(each.account_id, each.channel, unfit[each.account_id])
                    for each in meant]  # fmt: skip
        return replace(decision, excluded=[*decision.excluded, *left_out])

    def _offered(self, asked: Asked, table: RuleTable, terms: Terms) -> Offered:
        plan = plan_at(terms.plans, asked.at)
        fit: list[Offer] = []
        unfit: list[tuple[Offer, Reason]] = []
        for row in terms.accounts:
            is_own = terms.own.get(row.channel) == row.id
            if not is_own and row.id not in table.named:
                continue
            line = _line(plan, row.channel, asked)
            price = Price(row.fee_ppm)
            if line is not None and table.terms.cost == "merchant":
                # What the month has brought is not asked for each account: its first step counts.
                charge, _ = charge_of(line, asked.money.amount, business_date(asked.at))
                price = Price(charge.rate_ppm, charge.fixed, charge.fee_min, charge.fee_max)
            offer = Offer(row.id, row.channel, price, is_own)
            reason = self._unfit(row, asked, line)
            if reason is None:
                fit.append(offer)
            else:
                unfit.append((offer, reason))
        return Offered(fit, unfit)

    def _unfit(self, row: Account, asked: Asked, line: PriceLine | None) -> Reason | None:
        channel = self._channels.get(row.channel)
        if not row.is_open:
            return Reason.CLOSED
        if (
            channel is None
            or asked.pay_mode not in channel.modes
            or asked.money.currency not in channel.currencies
            or (asked.sets_aside and not isinstance(channel, Authorising))
        ):
            return Reason.MODE_NOT_OFFERED
        return Reason.PRICE_NOT_AGREED if line is None else None

    def _shadowed(self, decision: Decision, terms: Terms) -> Decision:
        """Return the decision with what the draft in the shadow says, which is counted."""
        asked = decision.asked
        shadow = next((e for e in self._in_use if e.is_shadow and e.mode is asked.mode), None)
        if shadow is None:
            return decision
        other = self._decide(asked, self._compiled[shadow.id], terms)
        theirs = other.candidates[0] if other.candidates else None
        self.watch.count_shadow(
            shadow.id,
            business_date(asked.at),
            differs=theirs is None or theirs.account_id != decision.chosen.account_id,
            cost_less=0
            if theirs is None
            else fen_less(asked.money.currency, decision.chosen.cost, theirs.cost),
        )
        return decision if theirs is None else replace(decision, shadow=theirs.account_id)

    def _limit(self, decision: Decision) -> Limit | None:
        table = self._compiled.get(decision.rule_set_id) if decision.rule_set_id else None
        if table is None:
            return None
        chosen, currency = decision.chosen, decision.asked.money.currency
        return table.limit_of(chosen.account_id, chosen.channel, currency)

    async def _know(self, at: datetime) -> None:
        await self.watch.know(business_date(at))
        self._in_use = self._rules.known(ALL) or await self._rules.get(ALL) or ()
        for each in self._in_use:
            if each.id not in self._compiled:
                self._compiled[each.id] = compile_rules(read_rules(each.source), each.id)

    async def _find_rules(self, _: Sequence[UUID]) -> dict[UUID, Sequence[RoutingRuleSet]]:
        return {ALL: await store.IN_USE.all(self._db, self._db.clock.now())}

    def _table(self, mode: Mode, at: datetime) -> RuleTable | None:
        """Return the rules in force at a moment, as far as they are known here."""
        newest: RoutingRuleSet | None = None
        for each in self._in_use:
            if each.mode is not mode or each.valid_from is None or each.valid_from > at:
                continue
            if newest is None or newest.valid_from is None or each.valid_from > newest.valid_from:
                newest = each
        return None if newest is None else self._compiled[newest.id]

    async def _terms_of(self, whose: Whose) -> Terms:
        return self._terms.known(whose) or await self._terms.get(whose) or Terms((), {}, ())

    async def _find(self, asked: Sequence[Whose]) -> dict[Whose, Terms]:
        plans = await price_plans_of(self._db, asked)
        accounts = await list_accounts(self._db)
        found = {}
        for whose in asked:
            own = await merchants.channels_of(self._db, *whose)
            is_open = {each.id for each in open_accounts(accounts, whose[1])}
            of_mode = [
                Account(each.id, each.channel, each.fee_ppm, each.id in is_open)
                for each in accounts
                if each.mode is whose[1]
            ]
            found[whose] = Terms(plans[whose], own, of_mode)
        return found


def _line(plan: PricePlan | None, channel: str, asked: Asked) -> PriceLine | None:
    """Return the line of the card's kind, or of any card where the kind is not known."""
    if plan is None or plan.currency != asked.money.currency:
        return None

    def distance(line: PriceLine) -> tuple[bool, bool]:
        return line.card != asked.card, line.card is not CardKind.ANY

    return min(plan.lines_for(channel, asked.pay_mode), key=distance, default=None)


def _day_limits(
    table: RuleTable, account_id: UUID, channel: str
) -> dict[str, tuple[int | None, int | None]]:
    """Return the amount and the number of payments an account may take a day, by currency."""
    found = {
        currency: table.limit_of(account_id, channel, currency)
        for currency in sorted({currency for _, currency in table.limits})
    }
    return {
        currency: (limit.day_amount, limit.day_count)
        for currency, limit in found.items()
        if limit is not None and limit.counts
    }


def _refusal(decision: Decision) -> NoChannelLeft | NoChannelUp:
    reasons = [each.reason for each in decision.excluded]
    if any(reason in _RESTING for reason in reasons):
        return NoChannelUp(pay_mode=decision.asked.pay_mode)
    why = ", ".join(sorted({reason.value for reason in reasons})) or "no account"
    return NoChannelLeft(pay_mode=decision.asked.pay_mode, reason=why)


def _args(row: RoutingDecision) -> tuple[object, ...]:
    shown = {"candidates", "excluded"}
    return tuple(
        msgspec.json.encode(getattr(row, name)).decode() if name in shown else getattr(row, name)
        for name in row.__struct_fields__
    )


async def cards_of(
    on: Db | Tx, books: Sequence[int], attempt_ids: Sequence[UUID]
) -> dict[UUID, CardAttempt]:
    """Return what was known of the cards of these attempts when they were placed, by attempt."""
    found = await store.CARDS_OF.all(on, books, attempt_ids)
    return {each.attempt_id: each for each in found}


async def decisions_of_payment(on: Db | Tx, book: int, payment_id: UUID) -> list[RoutingDecision]:
    """Return why each attempt of a payment went where it went, oldest first."""
    return await store.DECISIONS_OF_PAYMENT.all(on, book, payment_id)


async def shadow_tallies(on: Db | Tx) -> dict[UUID, ShadowTally]:
    """Return how drafts in the shadow compared with the rules in force."""
    return {each.rule_set_id: each for each in await store.SHADOW_TALLIES.all(on)}
