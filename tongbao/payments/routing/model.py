"""What a payment asks of routing, what it is told, and what routing hears of the calls. No I/O.

    Asked ─► rule ─► offers of accounts ─► excluded, each with its reason
                                        └► candidates in order, each with its score ─► Decision

A decision names accounts only. What may be tried after one of them has refused, payments say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import Final, Protocol
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra.db import Write
from tongbao.kernel.errors import Busy, Invalid, Rejected
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.orders import PayMode

PPM: Final = 1_000_000
BIN_MAX: Final = 8
"""Of a card number no more than its issuer's part comes here (ISO/IEC 7812-1:2017, 8 digits)."""
_LONG: Final = 16
_SHORT_BIN: Final = 6


def bin_of(number: str) -> str:
    """Return the first digits of a card's number, as many as routing may know and keep.

    PCI SSC FAQ 1091: eight where the number has sixteen digits or more, else six.
    """
    return number[: BIN_MAX if len(number) >= _LONG else _SHORT_BIN]


class NoChannelLeft(Rejected):
    """No account can take this payment: by its way of paying, currency, price or limits."""

    code = "routing.no_channel_left"
    advice = "Name a channel and way of paying the merchant has, or another amount."
    advice_zh = "没有可用渠道，请更换支付方式或金额，或指定商户已开通的渠道。"


class NoChannelUp(Busy):
    """Every account that could take this payment is resting after lost calls; nothing was sent."""

    code = "routing.no_channel_up"
    advice = "Repeat the same request with the same Idempotency-Key in half a minute."
    advice_zh = "可用渠道暂时中断，请半分钟后使用相同的 Idempotency-Key 重试。"
    retry_after_s = 30


class SplitMalformed(Invalid):
    """A split needs one weight for each of its targets, and one above zero."""

    code = "routing.split_malformed"
    advice = "Give `to` and `split` the same length; leave `split` out unless `by` is split."
    advice_zh = "to 与 split 的长度须一致；仅 by 为 split 时填写 split。"


class RuleUnreachable(Invalid):
    """A rule stands behind one that fits every payment, so it would never be used."""

    code = "routing.rule_unreachable"
    advice = "Move the named rule up, or give the one before it a condition."
    advice_zh = "请将该规则上移，或为其前一条无条件规则增加条件。"


class LimitMalformed(Invalid):
    """A limit limits nothing, contradicts itself, or stands twice for one target."""

    code = "routing.limit_malformed"
    advice = "Give each target and currency one limit with at least one figure above zero."
    advice_zh = "每个目标与币种只能有一条限额，且至少包含一个有效数值。"


class PlaceTaken(Busy):
    """Others used up an account's quota, or its last probe, while this payment was decided."""

    code = "routing.place_taken"
    advice = "Repeat the same request with the same Idempotency-Key."
    advice_zh = "请使用相同的 Idempotency-Key 重试同一请求。"


PLACE_TAKEN: Final = PlaceTaken.code
"""The refusal of a decision's writes: decide again without the account."""


class Reason(StrEnum):
    """Why an account is not among the candidates."""

    CLOSED = "closed"  # it takes no new payments
    MODE_NOT_OFFERED = "mode_not_offered"  # the channel has no such way of paying, or currency
    PRICE_NOT_AGREED = "price_not_agreed"
    TRIED = "tried"  # it has refused this payment before
    AMOUNT_TOO_SMALL = "amount_too_small"
    AMOUNT_TOO_LARGE = "amount_too_large"
    QUOTA_USED_UP = "quota_used_up"
    DOWN = "down"  # its breaker is open
    PROBING = "probing"  # its breaker is half open, and this payment is no probe
    SUCCESS_TOO_LOW = "success_too_low"
    TOO_SLOW = "too_slow"


class Manner(StrEnum):
    """How the first candidate came to be the first."""

    VALUE = "value"  # it has the greatest expected value
    ORDER = "order"  # the rule says so
    SPLIT = "split"  # the draw fell on it
    EXPLORE = "explore"  # it is looked at again, so that its figures stay true
    PROBE = "probe"  # it was down, and this payment finds out whether it still is


class Gate(StrEnum):
    """Whether an account takes payments, by what became of its calls."""

    UP = "up"
    PROBING = "probing"
    DOWN = "down"


class Asked(Struct, frozen=True):
    """A payment that wants a channel. ``channel``: the only one it may be, where that is known.

    ``among``: those that can charge the customer's code, the one of its own scheme first; empty
    where any channel may be.
    """

    payment_id: UUID
    book: int
    merchant_id: UUID
    mode: Mode
    pay_mode: PayMode
    money: Money
    at: datetime  # business time
    channel: str | None = None
    among: tuple[str, ...] = ()
    bin: str = ""  # the first digits of a card, `BIN_MAX` at most
    card: str = ""  # debit or credit, where the table of beginnings tells
    issuer: str = ""  # its bank, in that table's words
    metadata: Mapping[str, str] = {}
    tried: frozenset[UUID] = frozenset()  # accounts that refused it before, provably
    sets_aside: bool = False  # only authorised at first, which not every channel can


class Price(Struct, frozen=True):
    """What a payment costs: a share, plus a fixed sum, within a floor and a cap."""

    rate_ppm: int
    fixed: int = 0
    least: int = 0
    most: int | None = None

    def of(self, amount: int) -> int:
        """Return the cost in minor units, half up, never above the payment."""
        cost = (amount * self.rate_ppm + PPM // 2) // PPM + self.fixed
        most = amount if self.most is None else min(self.most, amount)
        return min(max(cost, self.least), most)


class Offer(Struct, frozen=True):
    """An account that could take payments of one kind for a merchant, and what it costs."""

    account_id: UUID
    channel: str
    price: Price
    is_own: bool = True  # it serves this merchant; of others only those that a rule names


class Candidate(Struct, frozen=True, gc=False):
    """An account that may take the payment, and the figures that rank it."""

    account_id: UUID
    channel: str
    cost: int  # minor units
    success_ppm: int
    latency_ms: int
    value: int  # minor units: success × (amount − cost), rounded down
    is_probe: bool = False


class Excluded(Struct, frozen=True, gc=False):
    """An account that may not take the payment."""

    account_id: UUID
    channel: str
    reason: Reason


class Decision(Struct, frozen=True):
    """Who takes a payment, who would be next, who was passed over, and by which rule."""

    asked: Asked
    rule_set_id: UUID | None  # None: there are no rules, so value decides
    rule: str
    manner: Manner
    candidates: Sequence[Candidate]
    excluded: Sequence[Excluded]
    bin_class: str
    shadow: UUID | None = None  # the account that the draft beside the rules would have chosen

    @property
    def chosen(self) -> Candidate:
        """The account that takes it; a decision that payments are given has one."""
        return self.candidates[0]


class Heard(Struct, frozen=True):
    """What became of a call to a channel, or of an attempt by a callback or bill.

    ``before`` and ``after`` are the attempt's states; ``outcome`` is None where nobody was called.
    """

    account_id: UUID
    pay_mode: PayMode
    attempt_id: UUID
    book: int
    purpose: str
    before: str
    after: str
    outcome: str | None = None
    duration_ms: int = 0


class MethodUp(Struct, frozen=True):
    """One way to pay that a customer may be offered now."""

    channel: str
    pay_mode: PayMode
    gate: Gate
    success_ppm: int
    latency_ms: int


class Rate(Struct, frozen=True):
    """How an account fared lately in one way of paying and class of cards."""

    success_ppm: int
    latency_ms: int
    samples: int


class AccountHealth(Struct, frozen=True):
    """How an account stands. ``rates`` by way of paying and class of cards; ``used`` of today.

    ``used`` and ``most`` are an amount and a number of payments by currency; what the rules in
    force do not limit is None.
    """

    account_id: UUID
    channel: str
    mode: Mode
    number: str
    gate: Gate
    since: datetime | None
    why: str
    rates: Mapping[str, Rate]
    used: Mapping[str, tuple[int, int]]
    most: Mapping[str, tuple[int | None, int | None]]
    is_open: bool


class RuleSetState(StrEnum):
    """Where a rule set stands; the last two are ends."""

    DRAFT = "draft"
    ACTIVE = "active"
    WITHDRAWN = "withdrawn"


class RoutingRuleSet(Struct, frozen=True):
    """One row of routing_rule_set: a version of a mode's rules, as they were written."""

    id: UUID
    mode: Mode
    number: int
    name: str
    source: str
    state: RuleSetState
    is_shadow: bool
    maker: str
    made_at: datetime
    checker: str | None
    decided_at: datetime | None
    valid_from: datetime | None


class RoutingDecision(Struct, frozen=True):
    """One row of routing_decision: who took an attempt and why, and who did not and why."""

    book: int
    attempt_id: UUID
    payment_id: UUID
    merchant_id: UUID
    mode: Mode
    rule_set_id: UUID | None
    rule: str
    manner: Manner
    account_id: UUID
    channel: str
    bin_class: str
    candidates: list[Candidate]
    excluded: list[Excluded]
    shadow_id: UUID | None
    day: date
    currency: str
    amount: int
    is_counted: bool
    at: datetime
    bin: str
    card: str
    issuer: str


class CardAttempt(Struct, frozen=True):
    """What is known of the card that an attempt is made with."""

    attempt_id: UUID
    bin_class: str
    bin: str
    card: str
    issuer: str


class ShadowTally(Struct, frozen=True):
    """How a draft compared with the rules in force, over all its days; ``cost_less`` is in fen."""

    rule_set_id: UUID
    decided: int
    differed: int
    cost_less: int


def fen_less(currency: str, cost: int, other_cost: int) -> int:
    """Return how many fen less the other costs, and 0 in any currency but CNY.

    Drafts are compared by one sum, and what was saved in two currencies makes none.
    """
    return cost - other_cost if currency == "CNY" else 0


class Router(Protocol):
    """Who is asked which account takes a payment; wiring says who that is."""

    async def settled(self, asked: Asked) -> Asked:
        """Return it with its channel named, unless its customer's code leaves a choice."""

    async def place(self, asked: Asked) -> Decision | None:
        """Decide; None where there is nothing to decide: the channel is named, and no rules are.

        A decision that is returned has a candidate.

        Raises:
            NoChannelLeft, NoChannelUp
        """

    async def refresh(self) -> None:
        """Read anew what is known of accounts, when a decision turned out to be too late."""

    def writes(self, decision: Decision, attempt_id: UUID, now: datetime) -> tuple[Write, ...]:
        """Return the writes of a decision, for the commit that makes its attempt.

        One of them refuses with `PLACE_TAKEN` when others were faster.
        """

    def ended(self, book: int, attempt_id: UUID) -> tuple[Write, ...]:
        """Return the writes for the commit that ends an attempt unpaid: its quota is free again."""

    def heard(self, heard: Heard) -> None:
        """Take note of what became of a call; it is written down soon, with others."""

    async def methods(self, asked: Asked, pay_modes: Sequence[PayMode]) -> list[MethodUp]:
        """Return the ways this payment could be made now, the most valuable first."""

    async def health(self) -> list[AccountHealth]:
        """Return how every account stands, and what of its day is used."""


class AsAsked:
    """Routes nothing: every payment names its channel, and nobody listens."""

    async def settled(self, asked: Asked) -> Asked:
        """Leave a customer's code to the channel of its own scheme."""
        return msgspec.structs.replace(asked, channel=asked.among[0]) if asked.among else asked

    async def place(self, asked: Asked) -> Decision | None:
        """Leave it at the channel that is named.

        Raises:
            NoChannelLeft: none is.
        """
        if asked.channel is None:
            raise NoChannelLeft(pay_mode=asked.pay_mode)
        return None

    async def refresh(self) -> None:
        """Know nothing anew."""

    def writes(self, decision: Decision, attempt_id: UUID, now: datetime) -> tuple[Write, ...]:
        """Write nothing."""
        del decision, attempt_id, now
        return ()

    def ended(self, book: int, attempt_id: UUID) -> tuple[Write, ...]:
        """Write nothing."""
        del book, attempt_id
        return ()

    def heard(self, heard: Heard) -> None:
        """Listen to nothing."""

    async def methods(self, asked: Asked, pay_modes: Sequence[PayMode]) -> list[MethodUp]:
        """Offer nothing."""
        del asked, pay_modes
        return []

    async def health(self) -> list[AccountHealth]:
        """Know nothing."""
        return []


AS_ASKED: Final[Router] = AsAsked()
"""The router of whoever has no other."""
