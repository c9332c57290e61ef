"""The routes of a merchant's app that opens wallets for its own users."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final, Literal
from urllib.parse import urlencode
from uuid import UUID

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta, Struct

from tongbao.controls.approvals.model import ApprovalWaiting
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.interface_numbers import Area
from tongbao.infra.web.request import (
    AmountField,
    ApiRequest,
    CurrencyField,
    NumberField,
)
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.licence import Licence
from tongbao.kernel.money import AMOUNT_MAX, AmountOutOfRange, UnknownCurrency, positive
from tongbao.kernel.pages import Page
from tongbao.parties.e_accounts.model import PREFIX as ACCOUNT
from tongbao.parties.e_accounts.queries import statement_of
from tongbao.parties.user_wallets import queries
from tongbao.parties.user_wallets.applications import apply, link_to_application
from tongbao.parties.user_wallets.changed_terms import set_programme, waiting_terms
from tongbao.parties.user_wallets.model import (
    PREFIX,
    PROPOSAL_LIFE_MAX_S,
    PROPOSAL_PREFIX,
    ApplicationNotFound,
    ApplicationStateWrong,
    Grant,
    LinksTooMany,
    NotGranted,
    ProgrammeNotActive,
    ProgrammeTermsInvalid,
    Proposal,
    ProposalInvalid,
    ProposalKind,
    ProposalNotFound,
    ProposalNumberUsed,
    ProposalOver,
    ProposalState,
    ProposalTooLarge,
    ReturnUnknown,
    Sitting,
    State,
    Terms,
    UserField,
    UserKnown,
    WalletApplicationView,
    WalletProgrammeView,
    WalletProposalView,
    view_application,
    view_proposal,
)
from tongbao.parties.user_wallets.programmes import programme_of, view_programme
from tongbao.parties.user_wallets.proposals import (
    WantedProposal,
    link_to_proposal,
    make_proposal,
)
from tongbao.payments.checkouts.api import PublicUrl
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.own_wallet.model import WalletQrEnded, WalletQrPaid, WalletQrUnknown
from tongbao.surfaces.user_wallets.paying import check_code

PAGES: Final = "/hosted_wallet"
"""Where the pages are; a link's secret stands behind it, in the query."""
_READ: Final = "user_wallets:read"
_WRITE: Final = "user_wallets:write"
_URL_MAX: Final = 512

Url = Annotated[str, Meta(min_length=1, max_length=_URL_MAX)]
LimitField = Annotated[int, Meta(ge=1, le=AMOUNT_MAX, description="Whole minor units of CNY.")]


class SetWalletProgramme(Struct, frozen=True, forbid_unknown_fields=True):
    """What the merchant asks its users for from now on, and where they are sent back to."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    return_urls: Annotated[list[Url], Meta(min_length=1, max_length=10)]
    account_class: Annotated[int, Meta(ge=1, le=3)]
    grants: Annotated[list[Grant], Meta(min_length=1, max_length=3)]
    each_max: LimitField
    day_max: LimitField


class ApplyForWallet(Struct, frozen=True, forbid_unknown_fields=True):
    """Begin to open a wallet for a user; ``user_id`` is the merchant's own, the same for ever."""

    user_id: UserField


class LinkToWallet(Struct, frozen=True, forbid_unknown_fields=True):
    """Make a link for the user: to ``open`` the wallet, or to ``manage`` what they allowed."""

    return_url: Url
    purpose: Literal["open", "manage"] = "open"


class ProposeToWallet(Struct, frozen=True, forbid_unknown_fields=True):
    """Propose a movement that the user agrees to, or not, on a page of ours."""

    merchant_proposal_no: NumberField
    application_id: Annotated[str, Meta(min_length=1, max_length=64)]
    kind: ProposalKind
    amount: AmountField
    purpose: Annotated[str, Meta(min_length=1, max_length=64)]
    currency: CurrencyField = "CNY"
    payee: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    payment_code: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    expires_in_s: Annotated[int, Meta(ge=60, le=PROPOSAL_LIFE_MAX_S)] = 1800


class LinkToProposal(Struct, frozen=True, forbid_unknown_fields=True):
    """Make a link for the user to agree to a proposal."""

    return_url: Url


class WalletLinkView(Struct, frozen=True, kw_only=True):
    """A link to open in the user's browser: good once, and shown this once."""

    object: Literal["wallet_link"]
    url: str
    expires_at: datetime


class WalletBalanceView(Struct, frozen=True, kw_only=True):
    """What a user's wallet holds now, and what of it can go out."""

    object: Literal["wallet_balance"]
    application_id: str
    status: str
    balance: int
    available: int
    currency: str


class WalletLineView(Struct, frozen=True, kw_only=True):
    """One movement; ``change`` is below zero where money went out."""

    kind: str
    change: int
    balance_after: int
    at: datetime


_TERMS: Final = SetWalletProgramme(
    "西溪茶馆会员钱包",
    ["https://shop.example/wallet"],
    3,
    ["balance", "statement", "propose"],
    50_000,
    200_000,
)
_LINKS: Final = (ProgrammeNotActive, ReturnUnknown, LinksTooMany)
_READS: Final = (ProgrammeNotActive, ApplicationNotFound, ApplicationStateWrong, NotGranted)
_MONEY: Final = (AmountOutOfRange, UnknownCurrency)
_AT: Final = "/v1/wallet_applications/{wallet_application_id:str}"
_PROPOSAL_AT: Final = "/v1/wallet_proposals/{wallet_proposal_id:str}"


@post(
    "/v1/wallet_programmes",
    status_code=200,
    opt=needs(
        _WRITE,
        interface=Area.USER_WALLETS.a2(1),
        refuses=[ProgrammeTermsInvalid, ApprovalWaiting],
        request_example=_TERMS,
    ),
)
async def post_wallet_programme(
    data: SetWalletProgramme, db: Db, caller: Caller
) -> WalletProgrammeView:
    """Say what the merchant asks its users for; in real money two people of ours admit it first.

    Other terms of one that was admitted wait for somebody of ours (`waiting`).
    """
    terms = Terms(
        data.name.strip(),
        data.account_class,
        data.grants,
        data.each_max,
        data.day_max,
        data.return_urls,
    )
    async with db.begin(caller.actor) as tx:
        set_to = await set_programme(tx, caller, terms)
        return view_programme(set_to, await waiting_terms(tx, set_to))


@get("/v1/wallet_programmes", opt=needs(_READ, interface=Area.USER_WALLETS.a2(2)))
async def get_wallet_programmes(db: Db, caller: Caller) -> Page[WalletProgrammeView]:
    """Return the merchant's programme in this mode, if it has said its terms."""
    found = await programme_of(db, caller.merchant_id, caller.mode)
    if found is None:
        return Page([])
    return Page([view_programme(found, await waiting_terms(db, found))])


@post(
    "/v1/wallet_applications",
    opt=needs(
        _WRITE,
        interface=Area.USER_WALLETS.a2(3),
        idempotent=True,
        refuses=[ProgrammeNotActive, UserKnown],
        request_example=ApplyForWallet("user-1"),
    ),
)
async def post_wallet_application(
    data: ApplyForWallet, request: ApiRequest, *, db: Db, caller: Caller
) -> Response[WalletApplicationView]:
    """Begin to open a wallet for one user of the merchant's; there is one for each, for ever."""

    async def fresh(use: Idempotency) -> WalletApplicationView:
        application_id = new_id()
        async with db.begin(caller.actor) as tx:
            await use.take(tx, application_id)
            made = await apply(tx, caller, data.user_id, application_id=application_id)
        return view_application(made)

    async def resume(application_id: UUID) -> WalletApplicationView:
        return view_application(await queries.application_with_id(db, application_id))

    return await answer_once(request, db, fresh=fresh, resume=resume)


@get("/v1/wallet_applications", opt=needs(_READ, interface=Area.USER_WALLETS.a2(4)))
async def get_wallet_applications(
    db: Db,
    caller: Caller,
    *,
    user_id: str | None = None,
    status: State | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[WalletApplicationView]:
    """Return the merchant's applications, newest first; one user's, or those of one status."""
    who = (caller.merchant_id, caller.mode)
    page = await queries.applications_of_merchant(
        db, who, user_ref=user_id, state=status, cursor=cursor, limit=limit
    )
    return Page([view_application(each) for each in page.items], page.next_cursor)


@get(_AT, opt=needs(_READ, interface=Area.USER_WALLETS.a2(5), refuses=[ApplicationNotFound]))
async def get_wallet_application(
    wallet_application_id: str, db: Db, caller: Caller
) -> WalletApplicationView:
    """Return how one application stands."""
    wanted = parse(PREFIX, wallet_application_id)
    return view_application(
        await queries.application_of_merchant(db, caller.merchant_id, caller.mode, wanted)
    )


@post(
    f"{_AT}/links",
    opt=needs(
        _WRITE,
        interface=Area.USER_WALLETS.a2(6),
        refuses=[ApplicationNotFound, ApplicationStateWrong, *_LINKS],
        request_example=LinkToWallet("https://shop.example/wallet"),
    ),
)
async def post_wallet_link(
    wallet_application_id: str,
    data: LinkToWallet,
    *,
    db: Db,
    caller: Caller,
    public_url: PublicUrl,
) -> WalletLinkView:
    """Make a link to a page of ours; it opens once, and an earlier one ends by it."""
    wanted = parse(PREFIX, wallet_application_id)
    async with db.begin(caller.actor) as tx:
        secret, sitting = await link_to_application(
            tx, caller, wanted, purpose=data.purpose, return_url=data.return_url
        )
    return _view_link(public_url, secret, sitting)


@get(f"{_AT}/balance", opt=needs(_READ, interface=Area.USER_WALLETS.a2(7), refuses=_READS))
async def get_wallet_balance(
    wallet_application_id: str, db: Db, caller: Caller
) -> WalletBalanceView:
    """Return what the user's wallet holds, where the user lets the merchant see it."""
    wanted = parse(PREFIX, wallet_application_id)
    account = await queries.account_to_read(db, caller.merchant_id, caller.mode, wanted, "balance")
    return WalletBalanceView(
        object="wallet_balance",
        application_id=wallet_application_id,
        status=account.state.value,
        balance=account.balance,
        available=account.available,
        currency=account.currency,
    )


@get(f"{_AT}/lines", opt=needs(_READ, interface=Area.USER_WALLETS.a2(8), refuses=_READS))
async def get_wallet_lines(
    wallet_application_id: str,
    db: Db,
    caller: Caller,
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[WalletLineView]:
    """Return what was moved in the user's wallet, newest first, where the user lets it be seen."""
    wanted = parse(PREFIX, wallet_application_id)
    account = await queries.account_to_read(
        db, caller.merchant_id, caller.mode, wanted, "statement"
    )
    page = await statement_of(db, account, cursor=cursor, limit=limit)
    lines = [
        WalletLineView(
            kind=each.code.split("/")[0],
            change=each.change,
            balance_after=each.balance_after,
            at=each.at,
        )
        for each in page.items
    ]
    return Page(lines, page.next_cursor)


@post(
    "/v1/wallet_proposals",
    opt=needs(
        _WRITE,
        interface=Area.USER_WALLETS.a2(9),
        idempotent=True,
        refuses=[
            *(*_READS, *_MONEY, ProposalInvalid, ProposalTooLarge, ProposalNumberUsed),
            *(WalletQrUnknown, WalletQrPaid, WalletQrEnded),
        ],
        request_example=ProposeToWallet(
            "proposal-1", "wap_01jd3w00000000000000000000", "top_up", 1000, "会员充值"
        ),
    ),
)
async def post_wallet_proposal(
    data: ProposeToWallet, request: ApiRequest, *, db: Db, flow: Flow, caller: Caller
) -> Response[WalletProposalView]:
    """Propose a movement; nothing moves until the user agrees on a page of ours."""
    application_id = parse(PREFIX, data.application_id)
    wanted = WantedProposal(
        data.merchant_proposal_no,
        data.kind,
        positive(data.amount, data.currency),
        data.purpose,
        None if data.payee is None else parse(ACCOUNT, data.payee),
        data.payment_code,
        timedelta(seconds=data.expires_in_s),
    )

    async def fresh(use: Idempotency) -> WalletProposalView:
        proposal_id = new_id()
        if wanted.payment_code is not None:
            await check_code(flow, caller, wanted.payment_code, wanted.money)
        async with db.begin(caller.actor) as tx:
            await use.take(tx, proposal_id)
            made = await make_proposal(tx, caller, application_id, wanted, proposal_id=proposal_id)
        return view_proposal(made)

    async def resume(proposal_id: UUID) -> WalletProposalView:
        return view_proposal(await _proposal(db, caller, proposal_id))

    return await answer_once(request, db, fresh=fresh, resume=resume)


@get("/v1/wallet_proposals", opt=needs(_READ, interface=Area.USER_WALLETS.a2(10)))
async def get_wallet_proposals(
    db: Db,
    caller: Caller,
    *,
    application_id: str | None = None,
    status: ProposalState | None = None,
    merchant_proposal_no: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[WalletProposalView]:
    """Return the merchant's proposals, newest first."""
    page = await queries.proposals_of_merchant(
        db,
        (caller.merchant_id, caller.mode),
        application_id=None if application_id is None else parse(PREFIX, application_id),
        state=status,
        number=merchant_proposal_no,
        cursor=cursor,
        limit=limit,
    )
    return Page([view_proposal(each) for each in page.items], page.next_cursor)


@get(_PROPOSAL_AT, opt=needs(_READ, interface=Area.USER_WALLETS.a2(11), refuses=[ProposalNotFound]))
async def get_wallet_proposal(
    wallet_proposal_id: str, db: Db, caller: Caller
) -> WalletProposalView:
    """Return how one proposal stands."""
    wanted = parse(PROPOSAL_PREFIX, wallet_proposal_id)
    return view_proposal(await _proposal(db, caller, wanted))


@post(
    f"{_PROPOSAL_AT}/links",
    opt=needs(
        _WRITE,
        interface=Area.USER_WALLETS.a2(12),
        refuses=[ProposalNotFound, ProposalOver, *_LINKS],
        request_example=LinkToProposal("https://shop.example/wallet"),
    ),
)
async def post_wallet_proposal_link(
    wallet_proposal_id: str,
    data: LinkToProposal,
    *,
    db: Db,
    caller: Caller,
    public_url: PublicUrl,
) -> WalletLinkView:
    """Make a link to agree by; it opens once, and an earlier one ends by it."""
    wanted = parse(PROPOSAL_PREFIX, wallet_proposal_id)
    async with db.begin(caller.actor) as tx:
        secret, sitting = await link_to_proposal(tx, caller, wanted, return_url=data.return_url)
    return _view_link(public_url, secret, sitting)


_ROUTES: Final[list[HTTPRouteHandler]] = [
    *(
        post_wallet_programme,
        get_wallet_programmes,
        post_wallet_application,
        get_wallet_applications,
        get_wallet_application,
    ),
    *(post_wallet_link, get_wallet_balance, get_wallet_lines),
    *(post_wallet_proposal, get_wallet_proposals, get_wallet_proposal, post_wallet_proposal_link),
]


def routes(licence: Licence) -> list[HTTPRouteHandler]:
    """Return the routes under a licence: a firm that may not hold funds opens no wallets."""
    return _ROUTES if licence.may_hold_funds else []


def _view_link(public_url: PublicUrl, secret: str, sitting: Sitting) -> WalletLinkView:
    at = f"{public_url.text.rstrip('/')}{PAGES}/begin?{urlencode({'link': secret})}"
    return WalletLinkView(object="wallet_link", url=at, expires_at=sitting.expires_at)


async def _proposal(db: Db, caller: Caller, wanted: UUID) -> Proposal:
    return await queries.proposal_of_merchant(db, caller.merchant_id, caller.mode, wanted)
