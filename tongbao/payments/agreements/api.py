"""The routes of agreements."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from litestar import Response, get, post
from msgspec import Meta, Struct

from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import AmountField, ApiRequest, InvalidValue, NumberField
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.money import AmountOutOfRange, Money, UnknownCurrency, positive
from tongbao.kernel.pages import Page
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import ChannelNotOpened, MerchantSuspended
from tongbao.payments.agreements import queries
from tongbao.payments.agreements.agreements import (
    OFFER_DEFAULT,
    AgreementNotFound,
    AgreementNotOffered,
    AgreementNumberUsed,
    Reach,
    ask_about,
    check_offered,
    end_agreement,
    offer_agreement,
)
from tongbao.payments.agreements.announcing import (
    AnnouncementView,
    AnnouncingNotOffered,
    announce_deduction,
    earlier_announcement,
)
from tongbao.payments.agreements.model import (
    Agreement,
    AgreementNotActive,
    AgreementState,
    NewAgreement,
    Period,
)
from tongbao.payments.agreements.records import AgreementFilter
from tongbao.payments.agreements.views import AgreementView, view_agreement
from tongbao.rails.channels.capabilities.agreements import SignsIn
from tongbao.rails.channels.codes import OWN_WALLET

_OFFER_S_MAX = int(timedelta(days=30).total_seconds())


class CreateAgreement(Struct, frozen=True, forbid_unknown_fields=True):
    """Offer a customer an agreement under which money is taken without asking each time.

    ``plan`` is the channel's number of the product and its rules. ``limit_each`` is what may be
    taken at once, ``limit_per_period`` what may be taken in a calendar ``period``, ``limit_total``
    what in all, each in minor units, and ``payments_max`` how many payments; what the channel
    allows besides is its own. ``signs_in`` is where the customer is to sign: on a page, or, at
    WeChat Pay and Alipay, out of the merchant's app or mini-program.
    """

    merchant_agreement_no: NumberField
    channel: Annotated[str, Meta(max_length=32)]
    plan: Annotated[str, Meta(min_length=1, max_length=64)]
    display_name: Annotated[str, Meta(min_length=1, max_length=64)]
    payer_id: Annotated[str, Meta(pattern=r"^[!-~]{1,128}(?!\n)$")] | None = None
    return_url: Annotated[str, Meta(pattern=r"^https?://[!-~]{1,500}(?!\n)$")] | None = None
    currency: Annotated[str, Meta(min_length=3, max_length=3)] = "CNY"
    limit_each: int | None = None
    period: Period | None = None
    limit_per_period: int | None = None
    limit_total: int | None = None
    payments_max: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    expires_in_s: Annotated[int, Meta(ge=60, le=_OFFER_S_MAX)] | None = None
    signs_in: SignsIn = "page"


_EXAMPLE = CreateAgreement(
    merchant_agreement_no="MEMBER-7",
    channel="alipay",
    plan="GENERAL_WITHHOLDING_P",
    display_name="monthly membership",
    return_url="https://shop.example/member",
    limit_each=3000,
    period=Period.MONTH,
    limit_per_period=3000,
)


@post(
    "/v1/agreements",
    opt=needs(
        "payments:write",
        idempotent=True,
        refuses=[
            AgreementNotOffered,
            AgreementNumberUsed,
            MerchantSuspended,
            ChannelNotOpened,
        ],
        request_example=_EXAMPLE,
    ),
)
async def create_agreement(
    data: CreateAgreement, request: ApiRequest, reach: Reach, caller: Caller
) -> Response[AgreementView]:
    """Offer an agreement.

    It comes back pending, and ``next_action`` says where the customer signs; a webhook tells when
    that has happened. The same agreement number with the same content returns the agreement it
    already made.
    """
    _check_limits(data)

    async def fresh(use: Idempotency) -> AgreementView:
        check_offered(reach, data.channel, data.signs_in)
        merchant = await merchants.merchant_with_id(reach.db, caller.merchant_id)
        merchant.check_active()
        account_id = merchant.id
        if data.channel != OWN_WALLET:  # which has no accounts
            account_id = await merchants.channel_account_of(
                reach.db, merchant.id, caller.mode, data.channel
            )
        asked = _asked(data, caller, account_id)
        agreement = await offer_agreement(reach, asked, use.write, new_id())
        return view_agreement(agreement, reach.db.clock.now())

    async def resume(found: UUID) -> AgreementView:
        agreement = await queries.agreement(reach.db, caller.book, found)
        if agreement.state is AgreementState.CREATED:
            agreement = await ask_about(reach, agreement)
        return view_agreement(agreement, reach.db.clock.now())

    return await answer_once(request, reach.db, fresh=fresh, resume=resume)


def _check_limits(data: CreateAgreement) -> None:
    if (data.period is None) != (data.limit_per_period is None):
        raise InvalidValue(param="$.period", reason="a limit per period and its period go together")
    for limit in (data.limit_each, data.limit_per_period, data.limit_total):
        if limit is not None:
            positive(limit, data.currency)


def _asked(data: CreateAgreement, caller: Caller, account_id: UUID) -> NewAgreement:
    lifetime = timedelta(seconds=data.expires_in_s) if data.expires_in_s else OFFER_DEFAULT
    return NewAgreement(
        merchant_id=caller.merchant_id,
        mode=caller.mode,
        book=caller.book,
        merchant_agreement_no=data.merchant_agreement_no,
        channel=data.channel,
        account_id=account_id,
        plan=data.plan,
        display_name=data.display_name,
        payer_id=data.payer_id,
        return_url=data.return_url,
        currency=data.currency,
        limit_each=data.limit_each,
        period=data.period,
        limit_per_period=data.limit_per_period,
        expires_in=lifetime,
        limit_total=data.limit_total,
        payments_max=data.payments_max,
        signs_in=data.signs_in,
    )


@post(
    "/v1/agreements/{agreement_id:str}/end",
    status_code=200,
    opt=needs("payments:write", idempotent=True, refuses=[AgreementNotFound, AgreementNotActive]),
)
async def end_signed_agreement(
    agreement_id: str, request: ApiRequest, reach: Reach, caller: Caller
) -> Response[AgreementView]:
    """End an agreement, at the channel first; nothing is taken under it from now on.

    It comes back ended, or ending while the channel is silent; a webhook tells the end.
    """
    target = parse("agr", agreement_id)

    async def fresh(use: Idempotency) -> AgreementView:
        agreement = await queries.agreement_of_merchant(
            reach.db, target, caller.merchant_id, caller.mode
        )
        agreement = await end_agreement(reach, agreement, use.write)
        return view_agreement(agreement, reach.db.clock.now())

    async def resume(found: UUID) -> AgreementView:
        agreement = await queries.agreement(reach.db, caller.book, found)
        return view_agreement(agreement, reach.db.clock.now())

    return await answer_once(request, reach.db, fresh=fresh, resume=resume)


class AnnounceDeduction(Struct, frozen=True, forbid_unknown_fields=True):
    """Tell the customer that this much will be taken, in the agreement's minor units."""

    amount: AmountField


@post(
    "/v1/agreements/{agreement_id:str}/announcements",
    opt=needs(
        "payments:write",
        idempotent=True,
        refuses=[AnnouncingNotOffered, AmountOutOfRange, UnknownCurrency, *queries.UNUSABLE],
        request_example=AnnounceDeduction(3000),
    ),
)
async def announce(
    agreement_id: str, data: AnnounceDeduction, request: ApiRequest, reach: Reach, caller: Caller
) -> Response[AnnouncementView]:
    """Have the channel (WeChat Pay) tell the customer what will be taken; some plans want it first.

    Each request is one message to the customer. ``unknown``: they may have been told, and nobody
    tells them again for this request.
    """
    target = parse("agr", agreement_id)

    async def wanted() -> tuple[Agreement, Money]:
        mine = (caller.merchant_id, caller.mode)
        agreement = await queries.agreement_of_merchant(reach.db, target, *mine)
        return agreement, positive(data.amount, agreement.currency)

    async def fresh(use: Idempotency) -> AnnouncementView:
        agreement, money = await wanted()
        agreement.check_usable(money, reach.db.clock.now())
        return await announce_deduction(reach, agreement, money, use.write)

    async def resume(exchange_id: UUID) -> AnnouncementView:
        return await earlier_announcement(reach, *await wanted(), exchange_id)

    return await answer_once(request, reach.db, fresh=fresh, resume=resume)


@get("/v1/agreements/{agreement_id:str}", opt=needs("payments:read", refuses=[AgreementNotFound]))
async def get_agreement(agreement_id: str, db: Db, caller: Caller) -> AgreementView:
    """Return one agreement."""
    agreement = await queries.agreement_of_merchant(
        db, parse("agr", agreement_id), caller.merchant_id, caller.mode
    )
    return view_agreement(agreement, db.clock.now())


@get("/v1/agreements", opt=needs("payments:read"))
async def list_agreements(
    db: Db,
    caller: Caller,
    *,
    status: AgreementState | None = None,
    merchant_agreement_no: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[AgreementView]:
    """Return agreements, newest first, by status or the merchant's agreement number."""
    wanted = AgreementFilter(
        merchant_id=caller.merchant_id,
        mode=caller.mode,
        status=status,
        merchant_agreement_no=merchant_agreement_no,
    )
    page = await queries.list_agreements(db, wanted, cursor=cursor, limit=limit)
    now = db.clock.now()
    return Page([view_agreement(each, now) for each in page.items], page.next_cursor)


ROUTES = [create_agreement, end_signed_agreement, announce, get_agreement, list_agreements]
