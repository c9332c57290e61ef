"""What a dispute is, what may happen to it, and what each step does to the money. No I/O.

    retrieval ─► closed            a question: no money moves, a chargeback may still follow
        └──► chargeback ─► represented ─► pre_arbitration ─► arbitration
                 │              │                │                │
                 └──────────────┴────────────────┴────────────────┴─► won | lost | accepted

The merchant's money is set aside when the scheme takes it back and stays so until the end,
whatever the scheme does with it in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from tongbao.infra.outbox import Event
from tongbao.kernel.clock import business_date, day_bounds
from tongbao.kernel.errors import Busy, Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money

REMIND_DAYS: Final = (7, 3, 1)
"""How many days before a deadline the merchant is reminded, each once."""
EXCEEDS_LEFT: Final = "dispute.exceeds_left"
REF_TAKEN: Final = "dispute.ref_taken"
MOVED_ON: Final = "dispute.moved_on"


class DisputeState(StrEnum):
    """Where a dispute stands; ``closed`` and the last three are ends."""

    RETRIEVAL = "retrieval"
    CLOSED = "closed"  # a retrieval that was answered, or ran out
    CHARGEBACK = "chargeback"
    REPRESENTED = "represented"
    PRE_ARBITRATION = "pre_arbitration"
    ARBITRATION = "arbitration"
    WON = "won"
    LOST = "lost"
    ACCEPTED = "accepted"

    @property
    def is_open(self) -> bool:
        """Whether something may still be done about it."""
        return self not in _ENDS

    @property
    def holds_money(self) -> bool:
        """Whether the merchant's money is set aside for it."""
        return self in _HOLDING

    @property
    def asks_merchant(self) -> bool:
        """Whether it is the merchant's turn."""
        return self in _ASKING


_ENDS: Final = frozenset(
    {DisputeState.CLOSED, DisputeState.WON, DisputeState.LOST, DisputeState.ACCEPTED}
)
_HOLDING: Final = frozenset(
    {
        DisputeState.CHARGEBACK,
        DisputeState.REPRESENTED,
        DisputeState.PRE_ARBITRATION,
        DisputeState.ARBITRATION,
    }
)
_ASKING: Final = frozenset(
    {DisputeState.RETRIEVAL, DisputeState.CHARGEBACK, DisputeState.PRE_ARBITRATION}
)


class Move(StrEnum):
    """What may be done about a dispute, by the scheme, the merchant, us, or time."""

    CHARGE_BACK = "charge_back"  # the scheme took the money
    SUBMIT = "submit"  # the merchant's answer came in
    SEND_ON = "send_on"  # we gave the answer to the scheme
    ACCEPT = "accept"  # the merchant gives up
    TAKE_AGAIN = "take_again"  # the scheme took it for the second time
    WIN = "win"
    LOSE = "lose"
    CLOSE = "close"


NEXT: Final[Mapping[tuple[DisputeState, Move], DisputeState]] = {
    (DisputeState.RETRIEVAL, Move.SUBMIT): DisputeState.RETRIEVAL,
    (DisputeState.RETRIEVAL, Move.SEND_ON): DisputeState.CLOSED,
    (DisputeState.RETRIEVAL, Move.CLOSE): DisputeState.CLOSED,
    (DisputeState.RETRIEVAL, Move.CHARGE_BACK): DisputeState.CHARGEBACK,
    (DisputeState.CLOSED, Move.CHARGE_BACK): DisputeState.CHARGEBACK,
    (DisputeState.CHARGEBACK, Move.SUBMIT): DisputeState.CHARGEBACK,
    (DisputeState.CHARGEBACK, Move.SEND_ON): DisputeState.REPRESENTED,
    (DisputeState.CHARGEBACK, Move.ACCEPT): DisputeState.ACCEPTED,
    (DisputeState.CHARGEBACK, Move.WIN): DisputeState.WON,
    (DisputeState.CHARGEBACK, Move.LOSE): DisputeState.LOST,
    (DisputeState.REPRESENTED, Move.TAKE_AGAIN): DisputeState.PRE_ARBITRATION,
    (DisputeState.REPRESENTED, Move.WIN): DisputeState.WON,
    (DisputeState.REPRESENTED, Move.LOSE): DisputeState.LOST,
    (DisputeState.PRE_ARBITRATION, Move.SUBMIT): DisputeState.PRE_ARBITRATION,
    (DisputeState.PRE_ARBITRATION, Move.SEND_ON): DisputeState.ARBITRATION,
    (DisputeState.PRE_ARBITRATION, Move.ACCEPT): DisputeState.ACCEPTED,
    (DisputeState.PRE_ARBITRATION, Move.WIN): DisputeState.WON,
    (DisputeState.PRE_ARBITRATION, Move.LOSE): DisputeState.LOST,
    (DisputeState.ARBITRATION, Move.WIN): DisputeState.WON,
    (DisputeState.ARBITRATION, Move.LOSE): DisputeState.LOST,
}
"""Every step there is; whatever is not here is refused."""


class AtEnd(StrEnum):
    """What follows when a stage's time is over and nobody has acted."""

    CLOSED = "closed"
    LOST = "lost"
    WON = "won"
    PEOPLE = "people"  # no scheme says: an operator decides


MOVE_AT_END: Final[Mapping[AtEnd, Move]] = {
    AtEnd.CLOSED: Move.CLOSE,
    AtEnd.LOST: Move.LOSE,
    AtEnd.WON: Move.WIN,
}


class TermQuality(StrEnum):
    """How good the word is that a deadline rests on, best first."""

    CONTRACT = "contract"  # with our acquirer
    SCHEME = "scheme"  # the scheme's own publication
    ACQUIRER = "acquirer"  # what an acquirer publishes
    SECONDARY = "secondary"  # somebody who writes about it
    HOUSE = "house"  # nobody says: the house's own rule


class Term(Struct, frozen=True):
    """One row of dispute_term: how long a stage may take, since when, and who says so."""

    scheme: str
    stage: DisputeState
    in_force: date
    days: int
    at_end: AtEnd
    source: str
    quality: TermQuality

    def deadline(self, begins: datetime) -> datetime:
        """Return when the stage's time is over: the last calendar day counts whole."""
        return day_bounds(business_date(begins) + timedelta(days=self.days))[1]


class Dispute(Struct, frozen=True):
    """One row of the dispute table.

    ``held`` is set aside of the merchant's money, ``owed`` what the merchant did not have of it
    (and of the fee), ``at_scheme`` what the scheme has taken back at this moment.
    """

    book: int
    id: UUID
    payment_id: UUID
    attempt_id: UUID
    merchant_id: UUID
    mode: Mode
    account_id: UUID
    scheme: str
    scheme_ref: str
    reason_code: str
    reason: str
    state: DisputeState
    amount: int
    currency: str
    held: int
    owed: int
    at_scheme: int
    fee: int
    deadline_at: datetime | None
    at_end: AtEnd | None
    term_source: str | None
    reminded: int
    submitted_at: datetime | None
    answer: str
    opened_at: datetime
    ended_at: datetime | None
    version: int

    @property
    def money(self) -> Money:
        """What is in dispute."""
        return Money(self.amount, self.currency)


class DisputeChange(Struct, frozen=True):
    """One row of dispute_change: a step and who took it."""

    book: int
    dispute_id: UUID
    version: int
    from_state: str
    to_state: str
    why: str
    actor: str
    at: datetime


class EvidenceFile(Struct, frozen=True):
    """One row of evidence_file: what was handed in for a dispute or complaint; a blob holds it."""

    book: int
    id: UUID
    merchant_id: UUID
    mode: Mode
    subject_id: UUID
    name: str
    media_type: str
    size: int
    sha256: str
    blob: str
    added_by: str
    added_at: datetime


class Owing(Struct, frozen=True):
    """A merchant who did not have all that disputes took; what is still owed, the ledger says."""

    book: int
    merchant_id: UUID
    mode: Mode
    currency: str


class Step(Struct, frozen=True):
    """What a move does: the row as it becomes and the rule that is posted."""

    after: Dispute
    rule: str | None


def next_step(dispute: Dispute, move: Move, term: Term | None, now: datetime) -> Step:
    """Return what a move makes of a dispute; ``term`` is that of the stage it comes to.

    Raises:
        DisputeMoved: nothing of the kind may happen to it as it stands.
    """
    target = NEXT.get((dispute.state, move))
    if target is None:
        raise DisputeMoved(status=dispute.state)
    if move is Move.SUBMIT:
        return Step(replace(dispute, submitted_at=now), None)
    after = replace(
        dispute,
        state=target,
        deadline_at=None if term is None else term.deadline(now),
        at_end=None if term is None else term.at_end,
        term_source=None if term is None else term.source,
        reminded=0,
        submitted_at=None,
        ended_at=None if target.is_open else now,
    )
    if target is DisputeState.CHARGEBACK:
        after = replace(after, held=dispute.amount, at_scheme=dispute.amount)
        return Step(after, "dispute.charged_back")
    if target is DisputeState.REPRESENTED:
        return Step(replace(after, at_scheme=0), "dispute.represented")
    if target is DisputeState.PRE_ARBITRATION:
        return Step(replace(after, at_scheme=dispute.amount), "dispute.taken_again")
    if target in {DisputeState.WON, DisputeState.LOST, DisputeState.ACCEPTED}:
        rule = "dispute.won" if target is DisputeState.WON else "dispute.lost"
        return Step(replace(after, held=0, at_scheme=0), rule)
    return Step(after, None)


def next_reminder(dispute: Dispute) -> datetime | None:
    """Return when the merchant is next reminded or time is up; None where nothing waits."""
    if dispute.deadline_at is None:
        return None
    is_asked = dispute.state.asks_merchant and dispute.submitted_at is None
    if is_asked and dispute.reminded < len(REMIND_DAYS):
        return dispute.deadline_at - timedelta(days=REMIND_DAYS[dispute.reminded])
    return dispute.deadline_at


class DisputeView(Struct, frozen=True, omit_defaults=True):
    """A dispute as the API and the webhooks show it."""

    id: str
    object: Literal["dispute"]
    mode: Mode
    payment_id: str
    scheme: str
    scheme_ref: str
    reason_code: str
    reason: str
    status: DisputeState
    amount: int
    currency: str
    amount_held: int
    fee: int
    version: int
    opened_at: datetime
    answer_by: datetime | UnsetType = UNSET
    answered_at: datetime | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET


def view_dispute(dispute: Dispute) -> DisputeView:
    """Return the dispute as the API and the webhooks show it."""
    is_asked = dispute.state.asks_merchant
    return DisputeView(
        id=show("dsp", dispute.id),
        object="dispute",
        mode=dispute.mode,
        payment_id=show("pay", dispute.payment_id),
        scheme=dispute.scheme,
        scheme_ref=dispute.scheme_ref,
        reason_code=dispute.reason_code,
        reason=dispute.reason,
        status=dispute.state,
        amount=dispute.amount,
        currency=dispute.currency,
        amount_held=dispute.held,
        fee=dispute.fee,
        version=dispute.version,
        opened_at=dispute.opened_at,
        answer_by=(dispute.deadline_at if is_asked else None) or UNSET,
        answered_at=dispute.submitted_at or UNSET,
        ended_at=dispute.ended_at or UNSET,
    )


class DisputeOpened(Event, frozen=True, kw_only=True, tag="dispute.opened"):
    """A customer objects to a payment; the merchant may answer."""

    object: DisputeView


class DisputeUpdated(Event, frozen=True, kw_only=True, tag="dispute.updated"):
    """A dispute came to another stage, or the merchant's answer came in."""

    object: DisputeView


class DisputeDue(Event, frozen=True, kw_only=True, tag="dispute.deadline_near"):
    """A dispute waits for the merchant's answer, and the time for it is nearly over."""

    object: DisputeView


class DisputeClosed(Event, frozen=True, kw_only=True, tag="dispute.closed"):
    """A dispute has ended: won, lost, accepted, or a question that led to nothing."""

    object: DisputeView


_Told = DisputeOpened | DisputeUpdated | DisputeDue | DisputeClosed


def event_of(dispute: Dispute, kind: type[_Told] | None = None) -> Event:
    """Return the event that tells how the dispute stands now."""
    ended = DisputeUpdated if dispute.ended_at is None else DisputeClosed
    chosen: type[_Told] = kind or ended
    return chosen(
        merchant_id=dispute.merchant_id,
        mode=dispute.mode,
        resource_id=show("dsp", dispute.id),
        object=view_dispute(dispute),
    )


class DisputeNotFound(NotFound):
    """The caller has no such dispute."""

    code = "dispute.not_found"
    advice = "Check the id, and that the API key is of the same merchant and mode."
    advice_zh = "请检查争议标识，并确认 API 密钥属于同一商户与模式。"


class DisputeMoved(Conflict):
    """The dispute is at a stage where this cannot be done."""

    code = "dispute.moved"
    advice = "Read the dispute again; its status says what may be done."
    advice_zh = "争议已进入其他阶段，请重新查询后再操作。"


class DisputeExceedsLeft(Rejected):
    """More would be disputed than is left of the payment: captured less refunds and disputes."""

    code = EXCEEDS_LEFT
    advice = "Look at the payment's refunds and disputes; one of them has the money already."
    advice_zh = "争议金额超过该支付的剩余金额，请核对其退款与争议。"


class DisputeRefUsed(Conflict):
    """The scheme's number belongs to another dispute."""

    code = "dispute.ref_used"
    advice = "Look the number up; each dispute of an account has its own."
    advice_zh = "该卡组织案件号已用于其他争议，请核对。"


class DisputePaymentUnfit(Conflict):
    """Only money that a channel took for a merchant can be disputed."""

    code = "dispute.payment_unfit"
    advice = "Name a payment that succeeded on a channel; the own wallet has no scheme."
    advice_zh = "仅渠道收款成功的支付可登记争议。"


class DisputeContended(Busy):
    """Others kept changing the dispute or the merchant's money meanwhile."""

    code = "dispute.contended"
    advice = "Do it again; it is done once, however often it is asked for."
    advice_zh = "请重试，同一操作只会生效一次。"


class TermTaken(Conflict):
    """A term of this scheme and stage begins on that day already, or on one that has passed."""

    code = "dispute.term_taken"
    advice = "Choose a later day; terms that have begun stay as they are."
    advice_zh = "请选择更晚的生效日期，已生效的期限不可修改。"


class SchemeUnknown(Rejected):
    """No deadlines are on record for this scheme."""

    code = "dispute.scheme_unknown"
    advice = "Use unionpay, visa, mastercard, jcb or other."
    advice_zh = "请使用 unionpay、visa、mastercard、jcb 或 other。"


class DebtSmaller(Rejected):
    """The merchant owes less than is to be written off."""

    code = "merchant_debt.smaller"
    advice = "Look at what is still owed, and propose no more than that."
    advice_zh = "商户欠款已少于拟核销金额，请核对后重新提交。"


class AnswerMissing(Invalid):
    """An answer says something, in words or by files."""

    code = "dispute.answer_missing"
    advice = "Write what happened, or hand in files first."
    advice_zh = "请填写说明，或先上传证据文件。"


class EvidenceFull(Rejected):
    """A dispute or complaint takes ten files."""

    code = "evidence.full"
    advice = "Put several pages into one PDF."
    advice_zh = "每个案件最多 10 个文件，请合并为一个 PDF。"


class EvidenceNotFound(NotFound):
    """There is no such file."""

    code = "evidence.not_found"
    advice = "Check the id against the dispute's list of files."
    advice_zh = "未找到该文件，请核对文件列表。"
