"""Choose the account that takes a payment: one pure decision, the same whenever it is repeated.

Chance is drawn from the payment's id, so a split, a look around and a probe can be replayed. The
expected value of an account is its success rate × (amount − cost); among equals the quicker one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from tongbao.parties.card_bins.model import brand_of
from tongbao.payments.routing.model import (
    PPM,
    Asked,
    Candidate,
    Decision,
    Excluded,
    Gate,
    Manner,
    Offer,
    Rate,
    Reason,
)
from tongbao.payments.routing.rules import Compiled, Limit, RuleTable, Terms
from tongbao.rails.channels.contract.orders import PayMode

PROBE_SHARE_PPM: Final = 200_000
"""How many of the payments that could probe an account do, while it has probes left."""


class Standing(Struct, frozen=True):
    """Whether an account takes payments, and how it fared, by way of paying and class."""

    gate: Gate
    has_probes: bool
    rates: Mapping[str, Rate]  # by `rate_key`


Standings = Mapping[UUID, Standing]
Used = Mapping[tuple[UUID, str], tuple[int, int]]
"""Amount and number of today's payments, by account and currency, as far as is known here."""

UNPROVEN: Final = Rate(success_ppm=950_000, latency_ms=0, samples=0)
"""What is expected of an account that nothing is known of: good enough to be tried."""
_FRESH: Final = Standing(Gate.UP, has_probes=False, rates={})


def rate_key(pay_mode: PayMode, class_: str) -> str:
    """Return what the figures of a way of paying and class of cards are found by."""
    return f"{pay_mode}/{class_}"  # a text keeps its hash, which a pair works out every time


def bin_class(digits: str) -> str:
    """Return the scheme of a card by its first digits; empty where there is no card."""
    if not digits:
        return ""
    return brand_of(digits)


def choose(
    asked: Asked,
    table: RuleTable,
    offers: Sequence[Offer],
    standings: Standings,
    used: Used,
) -> Decision:
    """Return who takes the payment, with everybody who could and everybody who could not.

    A channel that is named is used however it fares: its caller knows why it must be that one.
    A decision without candidates says by its exclusions why there are none.
    """
    rule, terms, amount = table.first_rule(asked), table.terms, asked.money.amount
    class_ = bin_class(asked.bin)
    key = rate_key(asked.pay_mode, class_)
    is_named = asked.channel is not None
    is_limited = bool(table.limits or asked.tried)
    ranked: list[Candidate] = []
    weak: list[tuple[Candidate, Reason]] = []
    excluded: list[Excluded] = []
    draws = _Draws(asked.payment_id)
    for offer in targets(rule, asked, offers):
        reason = _forbidden(asked, offer, table, used) if is_limited else None
        standing = standings.get(offer.account_id, _FRESH)
        if reason is None and standing.gate is not Gate.UP and not is_named:
            reason = _behind_gate(standing, draws)
        if reason is not None:
            excluded.append(Excluded(offer.account_id, offer.channel, reason))
            continue
        rate = standing.rates.get(key, UNPROVEN)
        is_probe = standing.gate is Gate.PROBING and not is_named
        candidate = _scored(amount, offer, rate, is_probe=is_probe)
        failing = _failing(rate, terms) if rate.samples >= terms.samples_min else None
        if failing is None or candidate.is_probe or is_named:
            ranked.append(candidate)
        else:
            weak.append((candidate, failing))
    if ranked or not weak:
        excluded += [Excluded(each.account_id, each.channel, why) for each, why in weak]
    else:
        ranked = [each for each, _ in weak]  # a weak account is better than none
    manner, ordered = _ordered(rule, ranked, terms, draws)
    if len(ordered) < len(ranked):
        kept = {each.account_id for each in ordered}
        spare = [each for each in ranked if each.account_id not in kept]
        excluded += [Excluded(each.account_id, each.channel, Reason.PROBING) for each in spare]
    return Decision(asked, table.id, rule.name, manner, ordered, excluded, class_)


class _Draws:
    """Chances of one payment: whole numbers below a bound, always the same for its id."""

    def __init__(self, payment_id: UUID) -> None:
        self._payment_id = payment_id
        self._digest: bytes | None = None

    def below(self, bound: int, use: int) -> int:
        if self._digest is None:
            self._digest = blake2b(self._payment_id.bytes, digest_size=32).digest()
        return int.from_bytes(self._digest[use * 8 : use * 8 + 8], "big") % bound


_SPLIT, _EXPLORE, _WHICH, _PROBE = range(4)


def settled(asked: Asked, fit: Sequence[Offer], connected: Collection[str] = ()) -> Asked:
    """Return it with its channel named, unless its customer's code leaves a choice among ``fit``.

    Where none of them can take the code, the merchant's own channel is named, or the one of the
    code's scheme: what is asked of it next says what is missing.
    """
    if not asked.among:
        return asked
    offered = {offer.channel for offer in fit}
    able = [channel for channel in asked.among if channel in offered]
    if len(able) > 1:
        return asked
    own = [channel for channel in asked.among if channel in connected]
    return replace(asked, channel=[*able, *own, *asked.among][0], among=())


def targets(rule: Compiled, asked: Asked, offers: Sequence[Offer]) -> Sequence[Offer]:
    """Return the offers that a rule means.

    Where the channel is named, the rule chooses among its accounts only, and where a customer's
    code is to be charged, among those that can; if it means none of them, the merchant's own take
    the payment.
    """
    if asked.channel is not None:
        same = [offer for offer in offers if offer.channel == asked.channel]
        named = [offer for offer in same if offer.account_id in rule.accounts]
        return named or [offer for offer in same if offer.is_own]
    if asked.among:
        able = [offer for offer in offers if offer.channel in asked.among]
        return _meant(rule, able) or [offer for offer in able if offer.is_own]
    return _meant(rule, offers)


def _meant(rule: Compiled, offers: Sequence[Offer]) -> list[Offer]:
    if not rule.accounts and not rule.channels:
        return [offer for offer in offers if offer.is_own]
    return [
        offer
        for offer in offers
        if (offer.is_own and offer.channel in rule.channels) or offer.account_id in rule.accounts
    ]


def _forbidden(asked: Asked, offer: Offer, table: RuleTable, used: Used) -> Reason | None:
    """Return why the account may not take this payment at all."""
    if offer.account_id in asked.tried:
        return Reason.TRIED
    limit = table.limit_of(offer.account_id, offer.channel, asked.money.currency)
    return None if limit is None else beyond(limit, offer.account_id, asked, used)


def beyond(limit: Limit, account_id: UUID, asked: Asked, used: Used) -> Reason | None:
    """Return why a limit forbids the payment, as far as is known before it is counted."""
    amount = asked.money.amount
    if limit.amount_min is not None and amount < limit.amount_min:
        return Reason.AMOUNT_TOO_SMALL
    if limit.amount_max is not None and amount > limit.amount_max:
        return Reason.AMOUNT_TOO_LARGE
    if limit.counts:
        taken, count = used.get((account_id, asked.money.currency), (0, 0))
        if limit.day_amount is not None and taken + amount > limit.day_amount:
            return Reason.QUOTA_USED_UP
        if limit.day_count is not None and count + 1 > limit.day_count:
            return Reason.QUOTA_USED_UP
    return None


def _behind_gate(standing: Standing, draws: _Draws) -> Reason | None:
    if standing.gate is Gate.DOWN:
        return Reason.DOWN
    is_probe = standing.has_probes and draws.below(PPM, _PROBE) < PROBE_SHARE_PPM
    return None if is_probe else Reason.PROBING


def _scored(amount: int, offer: Offer, rate: Rate, *, is_probe: bool) -> Candidate:
    cost = offer.price.of(amount)
    return Candidate(
        offer.account_id,
        offer.channel,
        cost,
        rate.success_ppm,
        rate.latency_ms,
        rate.success_ppm * (amount - cost) // PPM,
        is_probe,
    )


def _failing(rate: Rate, terms: Terms) -> Reason | None:
    if rate.success_ppm < terms.eliminate_below_ppm:
        return Reason.SUCCESS_TOO_LOW
    if terms.slow_above_ms is not None and rate.latency_ms > terms.slow_above_ms:
        return Reason.TOO_SLOW
    return None


def _ordered(
    rule: Compiled, ranked: list[Candidate], terms: Terms, draws: _Draws
) -> tuple[Manner, list[Candidate]]:
    """Return the candidates, the one that takes the payment first, and how it came to be first."""
    if not ranked:
        return Manner(rule.by), []
    manner = Manner(rule.by)
    if rule.by == "value":
        ranked.sort(key=_worth)
        if len(ranked) > 1 and draws.below(PPM, _EXPLORE) < terms.explore_ppm:
            ranked.insert(0, ranked.pop(1 + draws.below(len(ranked) - 1, _WHICH)))
            manner = Manner.EXPLORE
    else:
        ranked.sort(key=lambda each: _place(rule, each))
        if rule.by == "split":
            _put_first(ranked, _drawn(rule, ranked, draws))
    probe = next((at for at, each in enumerate(ranked) if each.is_probe), None)
    if probe is None:
        return manner, ranked
    # One probe at a time: what is behind a half-open breaker is no second choice.
    found = ranked[probe]
    return Manner.PROBE, [found, *[each for each in ranked if not each.is_probe]]


def _worth(candidate: Candidate) -> tuple[int, int, int]:
    # Of a few fen every value rounds alike, so the success rate is asked before the speed.
    return -candidate.value, -candidate.success_ppm, candidate.latency_ms


def _place(rule: Compiled, candidate: Candidate) -> int:
    """Return where the rule's order has an account: by itself, else by its channel."""
    own = rule.accounts.get(candidate.account_id)
    return rule.channels.get(candidate.channel, 0) if own is None else own


def _drawn(rule: Compiled, ranked: Sequence[Candidate], draws: _Draws) -> int:
    """Return which candidate the draw falls on; who is excluded leaves its share to the others."""
    weights = [rule.weights[_place(rule, each)] for each in ranked]
    total = sum(weights)
    if not total:
        return 0
    left = draws.below(total, _SPLIT)
    for at, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return at
    raise ValueError("weights do not sum up")


def _put_first(ranked: list[Candidate], at: int) -> None:
    ranked.insert(0, ranked.pop(at))
