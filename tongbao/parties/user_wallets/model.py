"""Wallets that a merchant's app opens for its own users, and what the users let it do. No I/O.

    programme    pending ──► active ⇄ suspended
    application  created ──► in_progress ──► opened ──► ended
                    └───────────────┴──► refused | expired ──a new link──► created
    proposal     awaiting ──► processing ──► done | failed
                    └──► declined | expired

The merchant sees states. Who its user is, and whether they had an account before, it does not.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from msgspec import Meta, Struct

from tongbao.infra.outbox import Event
from tongbao.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.e_accounts.model import PREFIX as ACCOUNT
from tongbao.parties.e_accounts.model import (
    EAccountBalanceShort,
    PayeeUnavailable,
)

PREFIX: Final = "wap"
PROGRAMME_PREFIX: Final = "wpg"
PROPOSAL_PREFIX: Final = "wpr"
LINK_LIFE: Final = timedelta(minutes=10)
"""How long a link can be opened, in real time."""
OPENED_LIFE: Final = timedelta(minutes=30)
"""How long a person may take over it once it is open, in real time."""
APPLICATION_LIFE: Final = timedelta(days=7)
LINKS_A_DAY_MAX: Final = 50
"""How many links to one person's pages a merchant may make in a day."""
RETURNS_MAX: Final = 10
PROPOSAL_LIFE_MAX_S: Final = 7 * 86_400

Grant = Literal["balance", "statement", "propose"]
Purpose = Literal["open", "manage", "confirm"]
ProposalKind = Literal["payment", "top_up", "withdrawal", "transfer"]


class ProgrammeTermsInvalid(Invalid):
    """A name, a limit or a return address is none that a programme can have."""

    code = "wallet_programme.terms_invalid"
    advice = (
        "Give a name of 1 to 64 characters, 1 to 10 https return addresses without fragment,"
        " different grants, and a day_max that is not below each_max."
    )
    advice_zh = (
        "名称 1–64 个字符；回跳地址 1–10 个 https 地址（不带 #）；授权项不重复；"
        "日累计限额不得低于单笔限额。"
    )


class ProgrammeNotActive(Conflict):
    """The merchant has no programme in this mode, or it waits to be admitted or is suspended."""

    code = "wallet_programme.not_active"
    advice = "Say the programme's terms first; in real money wait until it is admitted."
    advice_zh = "请先设置钱包计划；正式环境须待审核通过后使用。"


class ProgrammeNotFound(NotFound):
    """There is no such programme."""

    code = "wallet_programme.not_found"
    advice = "Find the programme in the list."
    advice_zh = "钱包计划不存在，请通过列表查找。"


class ProgrammeUnchanged(Conflict):
    """The programme stands there already, or does not move so."""

    code = "wallet_programme.unchanged"
    advice = "Look at the programme again and propose what is still wanted."
    advice_zh = "钱包计划状态未变化或已变更，请重新查看后提交。"


class ReturnUnknown(Invalid):
    """People are sent back only to an address that the programme names, sign by sign."""

    code = "wallet_programme.return_unknown"
    advice = "Send a return_url that the programme lists, exactly as it stands there."
    advice_zh = "return_url 必须与钱包计划登记的回跳地址完全一致。"


class ApplicationNotFound(NotFound):
    """The merchant has no such application."""

    code = "wallet_application.not_found"
    advice = "List the applications to find its id."
    advice_zh = "开户申请不存在，请通过列表查找。"


class UserKnown(Conflict):
    """This user of the merchant's has an application already; there is one for each, for ever."""

    code = "wallet_application.user_known"
    advice = "Go on with the application that `application` names."
    advice_zh = "该用户已有开户申请，请使用 application 所示的申请继续办理。"


class ApplicationStateWrong(Conflict):
    """The application does not stand where this can be done."""

    code = "wallet_application.state_wrong"
    advice = "Read the application: open a wallet once, and use or manage one that is opened."
    advice_zh = "申请状态不允许此操作：未开户的请先开户，已开户的方可使用或管理。"


class NotGranted(Forbidden):
    """The person did not consent to this."""

    code = "wallet_application.not_granted"
    advice = "Do what `grants` lists; to ask for more, have the person consent anew."
    advice_zh = "用户未授权该项操作；如需更多权限，请由用户重新授权。"


class LinksTooMany(Conflict):
    """So many links to one person's pages were made today."""

    code = "wallet_application.links_too_many"
    advice = "Go on tomorrow."
    advice_zh = "该用户今日的页面链接已达上限，请明日再试。"


class ProposalNotFound(NotFound):
    """The merchant has no such proposal."""

    code = "wallet_proposal.not_found"
    advice = "List the proposals to find its id."
    advice_zh = "该交易提议不存在，请通过列表查找。"


class ProposalNumberUsed(Conflict):
    """The number belongs to another proposal of the merchant's."""

    code = "wallet_proposal.number_used"
    advice = "Use a new merchant_proposal_no, or read the proposal that has it."
    advice_zh = "请更换 merchant_proposal_no，或查询已有的提议。"


class ProposalInvalid(Invalid):
    """A transfer names a payee, a payment one's own code of that amount, and nothing else does."""

    code = "wallet_proposal.invalid"
    advice = (
        "Name a payee with a transfer only, and with a payment only the code of a payment of yours"
        " with the same amount; write the purpose in plain characters."
    )
    advice_zh = (
        "仅转账须填写收款账户；仅付款须填写本商户同金额支付单的付款码；用途请使用可显示的普通字符。"
    )


class ProposalTooLarge(Conflict):
    """It is more than the person allowed this merchant at once, or in a day."""

    code = "wallet_proposal.too_large"
    advice = "Propose less, or go on tomorrow; `each_max` and `day_max` are the person's limits."
    advice_zh = "超过用户授权的单笔或日累计限额，请减少金额或次日再试。"


class ProposalOver(Conflict):
    """The proposal was decided, or its time is over."""

    code = "wallet_proposal.over"
    advice = "Read the proposal; make a new one for something new."
    advice_zh = "该提议已处理或已过期，如需继续请重新发起。"


class ProgrammeState(StrEnum):
    """Whether a programme may be used."""

    PENDING = "pending"
    ACTIVE = "active"
    SUSPENDED = "suspended"


class State(StrEnum):
    """Where an application stands."""

    CREATED = "created"
    IN_PROGRESS = "in_progress"
    OPENED = "opened"
    REFUSED = "refused"
    EXPIRED = "expired"
    ENDED = "ended"


class ProposalState(StrEnum):
    """Where a proposal stands; ``processing``: the person agreed, and it is not known yet."""

    AWAITING = "awaiting"
    PROCESSING = "processing"
    DONE = "done"
    FAILED = "failed"
    DECLINED = "declined"
    EXPIRED = "expired"


DECLINED: Final = "wallet_application.declined"
NOT_ELIGIBLE: Final = "wallet_application.not_eligible"
"""All that a merchant hears of why we open no account: more would tell who its user is."""
_TOLD: Final = frozenset({EAccountBalanceShort.code, PayeeUnavailable.code})
NOT_DONE: Final = "wallet_proposal.not_done"


def told_code(code: str) -> str:
    """Return what a merchant hears of why a proposal failed; a freeze is nobody's business."""
    return code if code in _TOLD else NOT_DONE


class Terms(Struct, frozen=True):
    """What a merchant says of its programme."""

    name: str
    account_class: int
    grants: list[Grant]
    each_max: int
    day_max: int
    return_urls: list[str]

    @property
    def lines(self) -> list[tuple[str, str, str]]:
        """Return what they say, line by line, for who decides: English, Chinese, the value."""
        each, day = (Money(most, "CNY").decimal_text() for most in (self.each_max, self.day_max))
        return [
            ("name", "名称", self.name),
            ("class of accounts", "账户类别", str(self.account_class)),
            ("users let it", "授权范围", ", ".join(self.grants)),
            ("CNY at once", "单笔限额（元）", each),
            ("CNY in a day", "日累计限额（元）", day),
            ("people return to", "回跳地址", ", ".join(self.return_urls)),
        ]


class Programme(Struct, frozen=True):
    """One row. Amounts are in minor units of CNY."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    name: str
    account_class: int
    grants: list[Grant]
    each_max: int
    day_max: int
    return_urls: list[str]
    state: ProgrammeState
    created_at: datetime
    changed_at: datetime

    @property
    def shown_id(self) -> str:
        """Return its public id."""
        return show(PROGRAMME_PREFIX, self.id)

    @property
    def terms(self) -> Terms:
        """Return what it asks users for."""
        limits = (self.each_max, self.day_max)
        return Terms(self.name, self.account_class, self.grants, *limits, self.return_urls)


class WalletApplication(Struct, frozen=True):
    """One row: a user of a merchant's, and from the consent on whose account it is."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    user_ref: str
    state: State
    code: str | None
    account_class: int
    grants: list[Grant]
    each_max: int
    day_max: int
    used_day: date | None
    used: int
    person_id: UUID | None
    account_id: UUID | None
    version: int
    created_at: datetime
    expires_at: datetime
    opened_at: datetime | None
    ended_at: datetime | None
    ended_by: str | None

    @property
    def shown_id(self) -> str:
        """Return its public id."""
        return show(PREFIX, self.id)

    @property
    def is_erased(self) -> bool:
        """Tell whether nobody knows any more whose it was; the user may apply anew."""
        return self.user_ref.startswith("erased:")

    def check_grants(self, grant: Grant) -> None:
        """Raise unless the wallet is open and the person lets the merchant do this.

        Raises:
            ApplicationStateWrong, NotGranted
        """
        if self.state is not State.OPENED:
            raise ApplicationStateWrong(status=self.state.value)
        if grant not in self.grants:
            raise NotGranted(grant=grant)


class Proposal(Struct, frozen=True):
    """One row."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    application_id: UUID
    proposal_no: str
    kind: ProposalKind
    amount: int
    currency: str
    payee_id: UUID | None
    payment_code: str | None
    purpose: str
    state: ProposalState
    code: str | None
    person_id: UUID
    account_id: UUID
    card_id: UUID | None
    level: int | None
    counted_day: date | None
    order_id: UUID | None
    version: int
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    ended_at: datetime | None
    carried_at: datetime | None

    @property
    def shown_id(self) -> str:
        """Return its public id, which is its order's request id too."""
        return show(PROPOSAL_PREFIX, self.id)

    @property
    def money(self) -> Money:
        """Return what is to be moved."""
        return Money(self.amount, self.currency)


class Sitting(Struct, frozen=True):
    """One row of wallet_session: a link, and the browser that has it open."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    application_id: UUID
    proposal_id: UUID | None
    purpose: Purpose
    return_url: str
    browser_hash: bytes | None
    device: bytes | None
    contact_sealed: bytes | None
    agreed: list[dict[str, Any]]
    message_code: UUID | None
    proved_at: datetime | None
    person_id: UUID | None
    card_id: UUID | None
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None


class WalletProgrammeTermsView(Struct, frozen=True, kw_only=True):
    """Terms that a merchant has proposed and nobody has agreed to yet."""

    name: str
    account_class: int
    grants: list[Grant]
    each_max: int
    day_max: int
    return_urls: list[str]


class WalletProgrammeView(Struct, frozen=True, kw_only=True):
    """A programme as its merchant sees it."""

    id: str
    object: Literal["wallet_programme"]
    mode: Mode
    name: str
    account_class: int
    grants: list[Grant]
    each_max: int
    day_max: int
    currency: str
    return_urls: list[str]
    status: ProgrammeState
    waiting: WalletProgrammeTermsView | None
    created_at: datetime


class WalletApplicationView(Struct, frozen=True, kw_only=True):
    """An application as its merchant sees it: states, and nothing of the person."""

    id: str
    object: Literal["wallet_application"]
    mode: Mode
    user_id: str
    status: State
    code: str | None  # why it was refused
    grants: list[Grant]
    each_max: int
    day_max: int
    currency: str
    version: int
    created_at: datetime
    expires_at: datetime
    opened_at: datetime | None
    ended_at: datetime | None


class WalletProposalView(Struct, frozen=True, kw_only=True):
    """A proposal as its merchant sees it."""

    id: str
    object: Literal["wallet_proposal"]
    mode: Mode
    application_id: str
    merchant_proposal_no: str
    kind: ProposalKind
    amount: int
    currency: str
    payee: str | None
    purpose: str
    status: ProposalState
    code: str | None  # why it failed
    version: int
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None


class ApplicationUpdated(Event, frozen=True, kw_only=True, tag="wallet_application.updated"):
    """An application was begun, opened, refused or ended, or its time is over."""

    object: WalletApplicationView


class ProposalUpdated(Event, frozen=True, kw_only=True, tag="wallet_proposal.updated"):
    """A proposal was agreed to or declined, came to its end, or its time is over."""

    object: WalletProposalView


UserField = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._@:+-]{1,64}(?!\n)$")]


def view_application(row: WalletApplication) -> WalletApplicationView:
    """Return an application as its merchant may see it."""
    return WalletApplicationView(
        id=row.shown_id,
        object="wallet_application",
        mode=row.mode,
        user_id=row.user_ref,
        status=row.state,
        code=row.code,
        grants=row.grants,
        each_max=row.each_max,
        day_max=row.day_max,
        currency="CNY",
        version=row.version,
        created_at=row.created_at,
        expires_at=row.expires_at,
        opened_at=row.opened_at,
        ended_at=row.ended_at,
    )


def view_proposal(row: Proposal) -> WalletProposalView:
    """Return a proposal as its merchant may see it."""
    return WalletProposalView(
        id=row.shown_id,
        object="wallet_proposal",
        mode=row.mode,
        application_id=show(PREFIX, row.application_id),
        merchant_proposal_no=row.proposal_no,
        kind=row.kind,
        amount=row.amount,
        currency=row.currency,
        payee=None if row.payee_id is None else show(ACCOUNT, row.payee_id),
        purpose=row.purpose,
        status=row.state,
        code=row.code,
        version=row.version,
        created_at=row.created_at,
        expires_at=row.expires_at,
        ended_at=row.ended_at,
    )
