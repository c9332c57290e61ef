"""What agreements are, what news from a channel does to them, and what may be taken. No I/O.

    created ─► pending ─► active ─► ending ─► ended      unknown is a state, as with payments
       │          │  └──► failed      └────► active
       └────► unknown ◄─► pending

An agreement whose offer ran out has failed; a customer who signs it all the same has signed it.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final, Literal, assert_never
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Conflict, Rejected
from tongbao.kernel.ids import base32
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.agreements import (
    AgreementEnded,
    AgreementOffered,
    AgreementOrder,
    AgreementOutcome,
    AgreementSigned,
    AgreementTerms,
    SignsIn,
)
from tongbao.rails.channels.codes import OWN_WALLET
from tongbao.rails.channels.contract.outcomes import Absent, Declined, NextAction, NotSent, Unknown

CARDS: Final = "cards"
SIGNED_HERE: Final = frozenset({OWN_WALLET, CARDS})
"""Channels whose agreements people sign with us, so that nobody else is asked about them."""
OFFER_OVER: Final = "agreement.offer_over"
"""Why an agreement failed that nobody signed in time."""


class AgreementNotActive(Conflict):
    """Nothing can be taken under the agreement: it is not signed, or no more."""

    code = "agreement.not_active"
    advice = "Use an agreement whose status is active; offer a new one where it has ended."
    advice_zh = "仅可使用状态为 active 的协议；已失效的请重新签约。"


class AgreementCurrencyDiffers(Rejected):
    """A deduction is in the agreement's own currency."""

    code = "agreement.currency_differs"
    advice = "Send the agreement's currency."
    advice_zh = "扣款币种必须与协议币种一致。"


class AgreementLimitEach(Rejected):
    """The deduction is more than the customer agreed to for one."""

    code = "agreement.limit_each"
    advice = "Take no more than limit_each at once."
    advice_zh = "单笔扣款不得超过协议的单笔限额 limit_each。"


class AgreementLimitPerPeriod(Rejected):
    """The deduction would exceed what the customer agreed to for a period."""

    code = "agreement.limit_per_period"
    advice = "Take no more than what is left of limit_per_period, or wait for the next period."
    advice_zh = "扣款将超出本周期限额 limit_per_period，请减少金额或等待下一周期。"


class AgreementLimitTotal(Rejected):
    """The deduction would exceed what the customer agreed to in all."""

    code = "agreement.limit_total"
    advice = "Take no more than what is left of limit_total; offer a new agreement for more."
    advice_zh = "扣款将超出协议总额 limit_total，请减少金额或重新签约。"


class AgreementPaymentsUsed(Rejected):
    """As many payments were taken as the customer agreed to."""

    code = "agreement.payments_max"
    advice = "Offer a new agreement; this one allows no further payment."
    advice_zh = "协议约定的扣款次数 payments_max 已用完，请重新签约。"


class AgreementState(StrEnum):
    """Where an agreement stands; the last two are ends."""

    CREATED = "created"
    PENDING = "pending"  # offered: the customer is to sign
    UNKNOWN = "unknown"
    ACTIVE = "active"
    ENDING = "ending"
    ENDED = "ended"
    FAILED = "failed"

    @property
    def is_offer(self) -> bool:
        """Whether the customer may still be about to sign."""
        return self in {AgreementState.CREATED, AgreementState.PENDING, AgreementState.UNKNOWN}

    @property
    def is_signed(self) -> bool:
        """Whether the customer has signed, and the channel may hold to it."""
        return self in {AgreementState.ACTIVE, AgreementState.ENDING}


class Period(StrEnum):
    """How often a limit begins anew, in the business's time zone; weeks begin on Monday."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"

    def begins(self, at: datetime) -> date:
        """Return the first day of the period that a moment is in."""
        day = business_date(at)
        match self:
            case Period.DAY:
                return day
            case Period.WEEK:
                return day - timedelta(days=day.weekday())
            case Period.MONTH:
                return day.replace(day=1)
            case Period.YEAR:
                return day.replace(month=1, day=1)


class Agreement(Struct, frozen=True):
    """One row of the agreement table. The channel knows it by `number`."""

    book: int
    id: UUID
    merchant_id: UUID
    mode: Mode
    merchant_agreement_no: str
    request_hash: bytes
    channel: str
    account_id: UUID
    plan: str
    display_name: str
    payer_id: str | None
    return_url: str | None
    currency: str
    limit_each: int | None
    period: Period | None
    limit_per_period: int | None
    period_begins: date
    used: int  # in the period that begins there
    state: AgreementState
    agreement_ref: str | None
    payer: str | None
    action: NextAction | None
    code: str | None
    created_at: datetime
    expires_at: datetime
    signed_at: datetime | None
    ends_at: datetime | None
    ended_at: datetime | None
    queries: int
    version: int
    limit_total: int | None = None
    payments_max: int | None = None
    used_total: int = 0
    payments_used: int = 0
    signs_in: SignsIn = "page"

    @property
    def number(self) -> str:
        """Our number at the channel, and the idempotency key of every call about it."""
        return base32(self.id)

    @property
    def order(self) -> AgreementOrder:
        """The agreement in the channel's terms."""
        return AgreementOrder(
            number=self.number,
            plan=self.plan,
            display_name=self.display_name,
            return_url=self.return_url,
            payer_id=self.payer_id,
            terms=self.terms,
            signs_in=self.signs_in,
        )

    @property
    def terms(self) -> AgreementTerms:
        """What may be taken under it, in the channel's terms."""
        each, per_period, total = (
            None if limit is None else Money(limit, self.currency)
            for limit in (self.limit_each, self.limit_per_period, self.limit_total)
        )
        return AgreementTerms(
            begins=business_date(self.created_at),
            period=None if self.period is None else self.period.value,
            limit_each=each,
            limit_per_period=per_period,
            limit_total=total,
            payments_max=self.payments_max,
        )

    def used_at(self, at: datetime) -> int:
        """Return what was taken in the period that a moment is in."""
        begins = self.period_begins if self.period is None else self.period.begins(at)
        return self.used if begins <= self.period_begins else 0

    def check_usable(self, money: Money, at: datetime) -> None:
        """Raise unless this much may be taken now.

        Raises:
            AgreementNotActive, AgreementCurrencyDiffers, AgreementLimitEach,
            AgreementLimitPerPeriod, AgreementLimitTotal, AgreementPaymentsUsed
        """
        is_over = self.ends_at is not None and at >= self.ends_at
        if self.state is not AgreementState.ACTIVE or is_over:
            raise AgreementNotActive(status=self.state)
        if money.currency != self.currency:
            raise AgreementCurrencyDiffers(expected=self.currency)
        if self.limit_each is not None and money.amount > self.limit_each:
            raise AgreementLimitEach(limit_each=self.limit_each)
        left = None if self.limit_per_period is None else self.limit_per_period - self.used_at(at)
        if left is not None and money.amount > left:
            raise AgreementLimitPerPeriod(left=left)
        if self.limit_total is not None and self.used_total + money.amount > self.limit_total:
            raise AgreementLimitTotal(left=self.limit_total - self.used_total)
        if self.payments_max is not None and self.payments_used >= self.payments_max:
            raise AgreementPaymentsUsed(payments_max=self.payments_max)


class NewAgreement(Struct, frozen=True):
    """A merchant's request to offer an agreement, ready to be written down."""

    merchant_id: UUID
    mode: Mode
    book: int
    merchant_agreement_no: str
    channel: str
    account_id: UUID
    plan: str
    display_name: str
    payer_id: str | None
    return_url: str | None
    currency: str
    limit_each: int | None
    period: Period | None
    limit_per_period: int | None
    expires_in: timedelta
    limit_total: int | None = None
    payments_max: int | None = None
    signs_in: SignsIn = "page"

    @property
    def fingerprint(self) -> bytes:
        """What makes two requests the same agreement."""
        meant = (
            self.channel,
            self.plan,
            self.display_name,
            self.payer_id,
            self.return_url,
            self.currency,
            self.limit_each,
            self.period,
            self.limit_per_period,
            *(() if self.limit_total is None else ("total", self.limit_total)),
            *(() if self.payments_max is None else ("payments", self.payments_max)),
            *(() if self.signs_in == "page" else ("signs_in", self.signs_in)),
        )
        return sha256(msgspec.json.encode(meant)).digest()

    def row(self, agreement_id: UUID, now: datetime) -> Agreement:
        """Return the row of the agreement as it begins."""
        return Agreement(
            book=self.book,
            id=agreement_id,
            merchant_id=self.merchant_id,
            mode=self.mode,
            merchant_agreement_no=self.merchant_agreement_no,
            request_hash=self.fingerprint,
            channel=self.channel,
            account_id=self.account_id,
            plan=self.plan,
            display_name=self.display_name,
            payer_id=self.payer_id,
            return_url=self.return_url,
            currency=self.currency,
            limit_each=self.limit_each,
            period=self.period,
            limit_per_period=self.limit_per_period,
            period_begins=(self.period or Period.DAY).begins(now),
            used=0,
            state=AgreementState.CREATED,
            agreement_ref=None,
            payer=None,
            action=None,
            code=None,
            created_at=now,
            expires_at=now + self.expires_in,
            signed_at=None,
            ends_at=None,
            ended_at=None,
            queries=0,
            version=1,
            limit_total=self.limit_total,
            payments_max=self.payments_max,
            signs_in=self.signs_in,
        )


Asked = Literal["offer", "query", "end"]
"""What an answer of a channel answers to."""


def next_agreement(
    agreement: Agreement, news: AgreementOutcome, asked: Asked, now: datetime
) -> Agreement | None:
    """Return the agreement as the news makes it, or None when it is no news.

    Nothing is ended by silence. That the channel knows of no agreement ends one that was signed:
    nothing can be taken under it any more.
    """
    match news:
        case AgreementSigned():
            return _on_signed(agreement, news)
        case AgreementOffered():
            return _on_offered(agreement, news)
        case AgreementEnded(code=code) | Absent(code=code):
            return _on_gone(agreement, code, asked, now, is_told=isinstance(news, AgreementEnded))
        case Declined() | NotSent():
            return _on_refused(agreement, news, asked, now)
        case Unknown(reason=reason):
            if agreement.state is not AgreementState.CREATED:
                return None
            return replace(agreement, state=AgreementState.UNKNOWN, code=reason[:64])
        case _:
            assert_never(news)


def _on_signed(agreement: Agreement, news: AgreementSigned) -> Agreement | None:
    if agreement.state.is_signed:
        renewed = replace(agreement, ends_at=news.ends_at)
        is_same = news.agreement_ref == agreement.agreement_ref
        return renewed if is_same and renewed != agreement else None
    if agreement.state is AgreementState.ENDED or (
        agreement.state is AgreementState.FAILED and agreement.code != OFFER_OVER
    ):
        return None  # word of it is older than the end
    return replace(
        agreement,
        state=AgreementState.ACTIVE,
        agreement_ref=news.agreement_ref,
        payer=news.payer,
        code=None,
        signed_at=news.at,
        ends_at=news.ends_at,
        ended_at=None,
    )


def _on_offered(agreement: Agreement, news: AgreementOffered) -> Agreement | None:
    if not agreement.state.is_offer:
        return None
    becomes = replace(
        agreement, state=AgreementState.PENDING, action=news.action or agreement.action, code=None
    )
    return becomes if becomes != agreement else None


def _on_gone(
    agreement: Agreement, code: str, asked: Asked, now: datetime, *, is_told: bool
) -> Agreement | None:
    if agreement.state.is_signed:
        return replace(agreement, state=AgreementState.ENDED, code=code[:64] or None, ended_at=now)
    if not agreement.state.is_offer or not is_told or asked == "offer":
        return None  # an offer that the channel does not know of may be signed yet
    return replace(
        agreement, state=AgreementState.FAILED, code=code[:64] or OFFER_OVER, ended_at=now
    )


def _on_refused(
    agreement: Agreement, news: Declined | NotSent, asked: Asked, now: datetime
) -> Agreement | None:
    code = news.code[:64] if isinstance(news, Declined) else "channel.not_reached"
    if asked == "offer" and agreement.state is AgreementState.CREATED:
        return replace(agreement, state=AgreementState.FAILED, code=code, ended_at=now)
    if asked == "end" and agreement.state is AgreementState.ENDING and isinstance(news, Declined):
        return replace(agreement, state=AgreementState.ACTIVE, code=code)
    return None


def over(agreement: Agreement, now: datetime) -> Agreement | None:
    """Return the agreement whose offer nobody took in time, or None when that is not so."""
    if not agreement.state.is_offer or now < agreement.expires_at:
        return None
    return replace(agreement, state=AgreementState.FAILED, code=OFFER_OVER, ended_at=now)
