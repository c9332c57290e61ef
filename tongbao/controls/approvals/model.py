"""What an approval is, where it may go, and how a kind of dangerous act is declared. No I/O.

    proposed ──another person──► approved ──its effect's own commit──► applied
       │ │ └──rejected              └──a refusal met the effect──► failed
       │ └──withdrawn by its maker
       └──expired

Only `proposed` and `approved` are open; of one act on one subject there is one open at most.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.outbox import Event
from tongbao.kernel.errors import Conflict, Forbidden, Invalid, NotFound, Rejected
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money

PREFIX: Final = "apv"
REASON_MIN: Final = 4
REASON_MAX: Final = 500
TERMS_MAX: Final = 65_536
_VERSION: Final = "tongbao approval 1"


class ReasonTooShort(Invalid):
    """Whoever proposes or rejects says why, for those who read it later."""

    code = "approval.reason_missing"
    advice = "Say why, in 4 to 500 characters."
    advice_zh = "请说明理由，4 至 500 个字符。"


class TermsTooLarge(Invalid):
    """What is proposed must be short enough to be read by whoever approves it."""

    code = "approval.terms_too_large"
    advice = "Propose less at once, or name a document by its digest."
    advice_zh = "提案内容过长，请拆分，或以摘要引用文件。"


class ApprovalNotFound(NotFound):
    """There is no such proposal."""

    code = "approval.not_found"
    advice = "Look it up in the inbox."
    advice_zh = "请在复核箱中查找该提案。"


class ApprovalWaiting(Conflict):
    """The same act on the same subject is proposed already, or approved and being applied."""

    code = "approval.waiting"
    advice = "Have the open proposal decided or withdrawn first, or supersede it."
    advice_zh = "同一事项已有未了结的提案，请先处理、撤回或明确取代该提案。"


class ApprovalDecided(Conflict):
    """The proposal is not open for this any more."""

    code = "approval.decided"
    advice = "Reload the inbox; it says what became of the proposal."
    advice_zh = "该提案已有结果，请刷新复核箱查看。"


class ApprovalExpired(Conflict):
    """The proposal, or the approval, is past its time."""

    code = "approval.expired"
    advice = "Propose it again, if it is still wanted."
    advice_zh = "该提案已过期；如仍需办理，请重新提交。"


class OwnProposal(Forbidden):
    """Nobody decides about what they proposed themselves; they may withdraw it."""

    code = "approval.own_proposal"
    advice = "Have another person decide, or withdraw it."
    advice_zh = "不得复核本人提交的提案，请由他人复核，或自行撤回。"


class NotTheMaker(Forbidden):
    """Only whoever proposed something may withdraw it."""

    code = "approval.not_the_maker"
    advice = "Reject it instead."
    advice_zh = "只有提案人可以撤回；复核人请选择驳回。"


class CheckerNotAllowed(Forbidden):
    """The person's role does not include deciding about this kind of act."""

    code = "approval.checker_not_allowed"
    advice = "Have somebody decide whose role includes it."
    advice_zh = "您的角色无权复核此类事项，请由有权限的人员复核。"


class MakerNotAllowed(Forbidden):
    """The person's role does not include proposing this kind of act."""

    code = "approval.maker_not_allowed"
    advice = "Have somebody propose it whose role includes it."
    advice_zh = "您的角色无权提交此类事项，请由有权限的人员提交。"


class TermsDiffer(Conflict):
    """What is to be approved is not what the checker has seen."""

    code = "approval.terms_differ"
    advice = "Reload the proposal and read it again."
    advice_zh = "提案内容与您看到的不一致，请刷新后重新核对。"


class TermsTampered(Rejected):
    """The stored terms are not those that were proposed or approved: somebody changed the row."""

    code = "approval.terms_tampered"
    advice = "Do not repeat it. Have the database and its audit log examined."
    advice_zh = "提案内容已被篡改，请勿重试，并立即核查数据库与审计日志。"


class AlreadyAgreed(Forbidden):
    """So much money takes two who agree, and whoever agrees now has agreed before."""

    code = "approval.already_agreed"
    advice = "Have another person agree as well; you are the first of two."
    advice_zh = "该金额须两人复核，您已复核，请由另一人再次复核。"


class SecondCheckWrong(Invalid):
    """The act is about no money, the day is past, or the amount or currency is none."""

    code = "approval.second_check_wrong"
    advice = "Name an act that moves money, a currency, an amount above nought and a day to come."
    advice_zh = "请指定涉及资金的事项、币种、大于零的金额以及今天或以后的日期。"


class ActUnknown(Conflict):
    """This program does not know the kind of act; a newer or older one does."""

    code = "approval.act_unknown"
    advice = "Decide about it with the program version that proposed it."
    advice_zh = "当前程序版本不认识该事项类型，请使用提交该提案的版本处理。"


class ApprovalState(StrEnum):
    """Where a proposal stands; all but the first two are ends."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    APPLIED = "applied"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    FAILED = "failed"

    @property
    def is_open(self) -> bool:
        """Whether something may still become of it."""
        return self in OPEN


OPEN: Final = (ApprovalState.PROPOSED, ApprovalState.APPROVED)


class Act(Struct, frozen=True):
    """A kind of dangerous act, declared by the domain that does it.

    ``terms`` is the frozen Struct of what is to happen: names and figures, no secret and no
    personal data, because every operator who may look at the inbox reads it. ``maker`` and
    ``checker`` name the permissions that proposing and deciding need. ``lasts`` is business time:
    how long a proposal waits, and then how long an approval may wait for its effect.
    """

    name: str
    en: str
    zh: str
    terms: type[Struct]
    maker: str
    checker: str
    lasts: timedelta = timedelta(days=3)
    amounts: Callable[[Any], Sequence[Money]] | None = None
    """What money the terms are about, where it may be so much that two have to agree."""


class SecondCheck(Struct, frozen=True):
    """One row of second_check: from which amount on an act takes two checkers, from a day on."""

    act: str
    currency: str
    valid_from: date
    amount_from: int | None
    known_from: datetime
    approval_id: UUID


class ApprovalAgreement(Struct, frozen=True):
    """One row of approval_agreement: the first of two who agree."""

    approval_id: UUID
    checker: str
    agreed_at: datetime
    note: str | None


class Approval(Struct, frozen=True):
    """One row of the approval table. ``terms`` is JSON, letter for letter as it was proposed."""

    id: UUID
    act: str
    subject: str
    merchant_id: UUID | None
    mode: Mode | None
    terms: str
    digest: bytes
    reason: str
    maker: str
    made_at: datetime
    expires_at: datetime
    state: ApprovalState
    checker: str | None
    decided_at: datetime | None
    note: str | None
    ended_at: datetime | None
    code: str | None
    superseded_by: UUID | None

    @property
    def shown_id(self) -> str:
        """Return the public form of its id."""
        return show(PREFIX, self.id)

    def is_expired(self, now: datetime) -> bool:
        """Tell whether nobody may decide about it any more."""
        return self.state is ApprovalState.PROPOSED and now >= self.expires_at

    def check_untouched(self, told: object) -> None:
        """Raise unless the terms are those whose digest the audit log was told.

        Raises:
            TermsTampered
        """
        if self.digest != digest_of(self) or self.digest.hex() != told:
            raise TermsTampered(approval=self.shown_id)


class Change(Struct, frozen=True):
    """One line of what an approval changes, as whoever decides reads it.

    The values are the same in both languages unless their Chinese is given beside them.
    """

    en: str
    zh: str
    before: str | None
    after: str
    before_zh: str | None = None
    after_zh: str | None = None


class ApprovalMoved(Event, frozen=True, kw_only=True, tag="approval.moved"):
    """A proposal was made, decided, applied, or came to another end. Between our own domains."""

    act: str
    subject: str
    state: str


def digest_of(approval: Approval) -> bytes:
    """Return the SHA-256 that stands for who wants what done to which thing, and why."""
    said = [
        _VERSION,
        str(approval.id),
        approval.act,
        approval.subject,
        str(approval.merchant_id),
        str(approval.mode),
        approval.maker,
        approval.reason,
        approval.terms,
    ]
    return sha256(msgspec.json.encode(said)).digest()


def terms_of(act: Act, approval: Approval) -> Any:
    """Return what an approval is to do."""
    return msgspec.json.decode(approval.terms, type=act.terms)


def reason_of(text: str) -> str:
    """Return a reason without needless space.

    Raises:
        ReasonTooShort
    """
    reason = " ".join(text.split())
    if not REASON_MIN <= len(reason) <= REASON_MAX:
        raise ReasonTooShort(param="reason")
    return reason


def terms_text(terms: Struct) -> str:
    """Return terms as the JSON that is kept, digested and applied.

    Raises:
        TermsTooLarge
    """
    text = msgspec.json.encode(terms, order="sorted").decode()
    if len(text) > TERMS_MAX:
        raise TermsTooLarge(param="terms")
    return text


class Effect(Struct, frozen=True):
    """What an act's ``apply`` is given: the approval and its terms, and the move to make with them.

    The last commit of the effect contains either `writes` (a ledger group's companions) or
    `close` (in a transaction of its own). They take effect once, whatever dies in between, so a
    second run does nothing; ids that the effect makes are derived from ``approval.id``.
    """

    approval: Approval
    terms: Any
    now: datetime
    writes: tuple[Write, ...]

    @property
    def actor(self) -> str:
        """Return in whose name the effect happens: the approval's, which names both people."""
        return self.approval.shown_id

    async def close(self, tx: Tx) -> None:
        """Move the approval to applied with the caller's transaction; best as its first statement.

        Raises:
            ApprovalDecided: somebody else has applied it, and the caller must not.
        """
        for write in self.writes:
            if await write.run(tx) == 0 and write.refusal is not None:
                raise ApprovalDecided(approval=self.approval.shown_id)


Apply = Callable[[Effect], Awaitable[None]]
"""Does what was approved. A refusal ends the approval as failed; being busy is tried again."""
Show = Callable[[Db, Approval, Any], Awaitable[Sequence[Change]]]
"""Tells what the terms would change, beside what is so now."""
Ended = Callable[[Tx, Approval, Any], Awaitable[None]]
"""Hears in the same transaction that it will not happen: rejected, withdrawn, expired or failed."""


class Bound(Struct, frozen=True):
    """An act and who does it: one line of the registry.

    ``link`` gives the page of its subject below the console.
    """

    act: Act
    apply: Apply
    show: Show | None = None
    ended: Ended | None = None
    link: Callable[[Approval], str | None] | None = None


Acts = Mapping[str, Bound]
"""Every act this deployment has, by name. Filled by the wiring."""


def acts_of(*bound: Bound) -> Acts:
    """Return a registry; two acts of one name are a bug."""
    found = {each.act.name: each for each in bound}
    if len(found) != len(bound):
        raise ValueError("two acts have one name")
    return found


class Approvals(Struct, frozen=True):
    """What deciding and applying work with. Built once by wiring."""

    db: Db
    acts: Acts
