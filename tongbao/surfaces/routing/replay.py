"""What a draft would have done with past traffic, beside what was done with it.

Both sides are measured by the same figures: what really became of the attempts of the period, by
account and way of paying. Every payment is asked about as if its channel had been left to us; only
a payment code stays with the channels that can charge it. Of a card is known what its decision
knew: its first digits, its kind and its bank. Where nobody decided, because the merchant named the
channel and there were no rules, a rule that asks for any of these does not fit; those are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Db
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Invalid
from tongbao.kernel.licence import Mode
from tongbao.payments.collecting import queries
from tongbao.payments.collecting.model import WALLET, Attempt, Payment
from tongbao.payments.collecting.queries import PaymentFilter
from tongbao.payments.routing.choosing import Standing, choose, rate_key, settled
from tongbao.payments.routing.health import Tally, rate_of
from tongbao.payments.routing.model import Asked, CardAttempt, Gate, Offer, Rate
from tongbao.payments.routing.router import cards_of
from tongbao.payments.routing.rules import RuleTable
from tongbao.rails.channels.codes import CODE_TAKERS
from tongbao.rails.channels.contract.orders import PayMode

PAYMENTS_MAX: Final = 100_000
_PAGE: Final = 100


class PeriodEmpty(Invalid):
    """The period ends before it begins."""

    code = "routing.period_empty"
    advice = "Let --from be earlier than --to."
    advice_zh = "--from 须早于 --to。"


class Past(Struct, frozen=True):
    """A payment of the past, the last of its attempts, and what was known of its card."""

    payment: Payment
    attempt: Attempt
    card: CardAttempt | None = None

    @property
    def rate_key(self) -> str:
        """What the figures of its way of paying and class of cards are found by."""
        return rate_key(self.attempt.pay_mode, self.card.bin_class if self.card else "")


class Side(Struct, frozen=True):
    """What one account has of the traffic on one side of the comparison."""

    payments: int = 0
    amount: int = 0  # minor units
    cost: int = 0
    expected: int = 0  # ppm, summed over the payments

    def plus(self, amount: int, cost: int, success_ppm: int) -> Side:
        """Return it with one more payment."""
        return Side(
            self.payments + 1, self.amount + amount, self.cost + cost, self.expected + success_ppm
        )

    @property
    def success_ppm(self) -> int:
        """The success that was to be expected of its payments."""
        return self.expected // self.payments if self.payments else 0


class Comparison(Struct, frozen=True):
    """Past traffic as it went, and as it would have gone."""

    payments: int
    moved: int
    unplaced: Mapping[str, int]  # by the reasons why no account was left
    before: Mapping[tuple[UUID, str], Side]  # by account and currency
    after: Mapping[tuple[UUID, str], Side]
    rules: Mapping[str, int]  # how many payments each rule of the draft decided
    cards_unknown: int  # card payments whose first digits nobody kept


OffersOf = Callable[[Asked], Awaitable[Sequence[Offer]]]


async def past_traffic(
    db: Db, mode: Mode, since: datetime, until: datetime, *, limit: int = PAYMENTS_MAX
) -> AsyncIterator[Past]:
    """Yield the payments of a half-open period that went over a channel, newest first.

    Raises:
        PeriodEmpty
    """
    if until <= since:
        raise PeriodEmpty
    wanted = PaymentFilter(mode=mode, created_from=since, created_to=until)
    cursor, seen = None, 0
    while seen < limit:
        page = await queries.list_payments(db, wanted, cursor=cursor, limit=_PAGE)
        attempts = await queries.last_attempts(db, page.items)
        by_card = [each for each in page.items if each.pay_mode is PayMode.CARD]
        books = list({each.book for each in by_card})
        cards = await cards_of(db, books, [attempts[each.id].id for each in by_card])
        for payment in page.items:
            if payment.channel != WALLET:
                attempt = attempts[payment.id]
                yield Past(payment, attempt, cards.get(attempt.id))
        seen += len(page.items)
        cursor = page.next_cursor
        if cursor is None:
            return


def rates_of(past: Iterable[Past]) -> dict[UUID, Standing]:
    """Return how each account really fared, by way of paying and class of cards.

    Who went away counts for nothing.
    """
    tallies: dict[tuple[UUID, str], Tally] = {}
    for each in past:
        tried, won = _verdict(each.attempt)
        key = (each.attempt.account_id, each.rate_key)
        tallies[key] = tallies.get(key, Tally()).plus(Tally(tried=tried, won=won))
    rates: dict[UUID, dict[str, Rate]] = {}
    for (account_id, found_by), tally in tallies.items():
        rates.setdefault(account_id, {})[found_by] = rate_of(tally)
    return {
        account_id: Standing(Gate.UP, has_probes=False, rates=found)
        for account_id, found in rates.items()
    }


def _verdict(attempt: Attempt) -> tuple[int, int]:
    if attempt.paid_at is not None or attempt.authorised_at is not None:
        return 1, 1
    return (1, 0) if attempt.state in {"declined", "not_sent", "unknown"} else (0, 0)


async def replay(past: Sequence[Past], draft: RuleTable, offers_of: OffersOf) -> Comparison:
    """Ask a draft about every payment, in the order they came, and compare.

    Limits of a day are counted by what the draft chooses, from nothing at the day's beginning.
    """
    standings = rates_of(past)
    before: dict[tuple[UUID, str], Side] = {}
    after: dict[tuple[UUID, str], Side] = {}
    unplaced: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    used: dict[date, dict[tuple[UUID, str], tuple[int, int]]] = {}
    moved = 0
    for each in sorted(past, key=lambda one: one.payment.id):
        asked, account_id = asked_again(each.payment, each.card), each.attempt.account_id
        currency, amount = asked.money.currency, asked.money.amount
        offers = await offers_of(asked)
        asked = settled(asked, offers)
        price = next((one.price for one in offers if one.account_id == account_id), None)
        rate = standings[account_id].rates[each.rate_key]
        then = before.get((account_id, currency), Side())
        cost = price.of(amount) if price is not None else 0
        before[account_id, currency] = then.plus(amount, cost, rate.success_ppm)
        today = used.setdefault(business_date(asked.at), {})
        decision = choose(asked, draft, offers, standings, today)
        rules[decision.rule] += 1
        if not decision.candidates:
            reasons = sorted({one.reason.value for one in decision.excluded})
            unplaced[", ".join(reasons) or "no account"] += 1
            continue
        chosen = decision.chosen
        moved += chosen.account_id != account_id
        key = (chosen.account_id, currency)
        after[key] = after.get(key, Side()).plus(amount, chosen.cost, chosen.success_ppm)
        taken, count = today.get(key, (0, 0))
        today[key] = taken + amount, count + 1
    unread = sum(not each.card for each in past if each.payment.pay_mode is PayMode.CARD)
    return Comparison(len(past), moved, unplaced, before, after, rules, unread)


def asked_again(payment: Payment, card: CardAttempt | None = None) -> Asked:
    """Return what routing would be asked about a payment of the past, made with a card if one.

    A code was kept nowhere; its scheme is the channel's own, and of Qra's alone it is not known.
    """
    by_code = payment.pay_mode is PayMode.PAYMENT_CODE
    takers = CODE_TAKERS.get(payment.channel, (payment.channel,))
    return Asked(
        payment_id=payment.id,
        book=payment.book,
        merchant_id=payment.merchant_id,
        mode=payment.mode,
        pay_mode=payment.pay_mode,
        money=payment.money,
        at=payment.created_at,
        among=takers if by_code else (),
        bin=card.bin if card is not None else "",
        card=card.card if card is not None else "",
        issuer=card.issuer if card is not None else "",
        metadata=payment.metadata,
        sets_aside=payment.capture_within_s is not None,
    )


def table_of(comparison: Comparison, names: Mapping[UUID, str]) -> list[dict[str, object]]:
    """Return a line for each account and currency, and the sums, as people read them."""
    keys = sorted(
        comparison.before.keys() | comparison.after.keys(),
        key=lambda key: (names.get(key[0], ""), key[1]),
    )
    nothing = Side()
    lines = [
        _line(
            names.get(account_id, "gone"),
            currency,
            comparison.before.get((account_id, currency), nothing),
            comparison.after.get((account_id, currency), nothing),
        )
        for account_id, currency in keys
    ]
    for currency in sorted({currency for _, currency in keys}):
        then = _sum(side for key, side in comparison.before.items() if key[1] == currency)
        now = _sum(side for key, side in comparison.after.items() if key[1] == currency)
        lines.append(_line("all", currency, then, now))
    return lines


def _line(account: str, currency: str, before: Side, after: Side) -> dict[str, object]:
    return {
        "account": account,
        "currency": currency,
        "payments": before.payments,
        "would_be": after.payments,
        "amount": before.amount,
        "amount_would_be": after.amount,
        "cost": before.cost,
        "cost_would_be": after.cost,
        "success": percent(before.success_ppm),
        "success_would_be": percent(after.success_ppm),
    }


def _sum(sides: Iterable[Side]) -> Side:
    found = Side()
    for each in sides:
        found = Side(
            found.payments + each.payments,
            found.amount + each.amount,
            found.cost + each.cost,
            found.expected + each.expected,
        )
    return found


def percent(ppm: int) -> str:
    """Return a share as people read it: ``95.00%``."""
    hundredths = (ppm + 50) // 100
    return f"{hundredths // 100}.{hundredths % 100:02}%"
