"""The routes of applications: made, changed, documented, signed, submitted, and the first key."""

from __future__ import annotations

import binascii
from base64 import b64decode
from datetime import date, datetime
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from msgspec import UNSET, Meta, Struct, UnsetType

from tongbao.infra.blobs.store import Blobs
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest, InvalidValue, NumberField
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.pages import Page
from tongbao.kernel.papers.document_types import DocumentTypeRefused
from tongbao.parties.identity.keys import secret_of_key
from tongbao.parties.identity.queries import key_of_merchant
from tongbao.parties.onboarding import _store as store
from tongbao.parties.onboarding import queries
from tongbao.parties.onboarding.applications import (
    Asked,
    amend_application,
    create_application,
    withdraw_application,
)
from tongbao.parties.onboarding.documents import (
    DocumentView,
    add_document,
    post_file,
    view_document,
)
from tongbao.parties.onboarding.model import (
    PREFIX,
    Account,
    AccountNumberInvalid,
    Application,
    ApplicationNotFound,
    ApplicationNotOpenForThis,
    ApplicationNumberUsed,
    ApplicationState,
    BankNumberInvalid,
    ChannelAsked,
    Contact,
    CreditCodeInvalid,
    DocumentKind,
    DocumentsMissing,
    DocumentTooLarge,
    Firm,
    FirmTakenOn,
    IdentityExpired,
    IdentityFixed,
    KeyShown,
    LegalPerson,
    LicenceExpired,
    Masked,
    ResidentIdInvalid,
    Trade,
)
from tongbao.parties.onboarding.openings import submit
from tongbao.parties.onboarding.terms import TERMS_ROUTES, TermsUnsigned
from tongbao.parties.price_plans.model import PriceLine, PriceLinesInvalid

_BASE64_MAX: Final = 1_000_000
_NUMBERS: Final = (
    CreditCodeInvalid,
    ResidentIdInvalid,
    BankNumberInvalid,
    AccountNumberInvalid,
    PriceLinesInvalid,
)


class ApplicationBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an application says. Prices are those asked for; the review agrees to them or not."""

    firm: Firm
    legal_person: LegalPerson
    contact: Contact
    account: Account
    trade: Trade
    channels: Annotated[list[ChannelAsked], Meta(min_length=1, max_length=16)]
    prices: Annotated[list[PriceLine], Meta(min_length=1, max_length=64)]
    settlement_delay_days: Annotated[int, Meta(ge=0, le=30)] = 1

    def asked(self) -> Asked:
        """Return it as a command takes it."""
        return Asked(
            firm=self.firm,
            legal_person=self.legal_person,
            contact=self.contact,
            account=self.account,
            trade=self.trade,
            channels=self.channels,
            prices=self.prices,
            settlement_delay_days=self.settlement_delay_days,
        )


class CreateApplication(ApplicationBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Apply for a merchant, under a number of the applicant's own."""

    application_no: NumberField


class AddDocument(Struct, frozen=True, forbid_unknown_fields=True):
    """Add a picture, in base64; one of its kind takes the place of an earlier one."""

    kind: DocumentKind
    content: Annotated[str, Meta(max_length=_BASE64_MAX)]

    def __repr__(self) -> str:
        return f"AddDocument({self.kind})"


class ApplicationView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An application as its applicant sees it; what identifies persons is masked."""

    id: str
    object: Literal["application"]
    application_no: str
    mode: Mode
    status: ApplicationState
    firm: Firm
    trade: Trade
    personal: Masked
    channels: list[ChannelAsked]
    prices: list[PriceLine]
    settlement_delay_days: int
    documents: list[DocumentView]
    created_at: datetime
    note: str | UnsetType = UNSET  # why it was returned or declined
    merchant_id: str | UnsetType = UNSET
    submitted_at: datetime | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET


class FirstKey(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The opened merchant's first key; ``secret`` is in the first answer only."""

    id: str
    object: Literal["first_key"]
    merchant_id: str
    key_id: str
    scopes: list[str]
    secret: str | UnsetType = UNSET


_PICTURE: Final = (  # a PNG of one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mP4DwABAQEAHLCMmQAAAABJRU5ErkJggg=="
)
_SAID: Final = {
    "firm": Firm(
        "enterprise",
        "杭州西溪茶叶有限公司",
        "西溪茶叶",
        "91350100M000100Y43",
        "浙江省杭州市西湖区文三路1号",
        date(2020, 1, 1),
    ),
    "legal_person": LegalPerson("张三丰", "11010519491231002X", date(2020, 1, 1)),
    "contact": Contact("张三丰", "13800001234", "zhang@tea.example"),
    "account": Account(
        "corporate", "杭州西溪茶叶有限公司", "8888100112233", "工商银行", "102100099996", "330100"
    ),
    "trade": Trade("5812", "0571-88886666", "西溪茶馆", "330106", "文三路1号一层"),
    "channels": [ChannelAsked("wechat_pay", {"settlement_id": "719"})],
    "prices": [PriceLine("wechat_pay", "qr", 6_000)],
}


@post(
    "/v1/applications",
    opt=needs(
        "applications:write",
        idempotent=True,
        refuses=[*_NUMBERS, ApplicationNumberUsed],
        request_example=msgspec.convert(
            {**_SAID, "application_no": "apply-1"}, CreateApplication, from_attributes=True
        ),
    ),
)
async def post_application(
    data: CreateApplication, request: ApiRequest, *, db: Db, keyring: Keyring, caller: Caller
) -> Response[ApplicationView]:
    """Begin an application. Its numbers are checked now, its documents when it is submitted."""

    async def fresh(use: Idempotency) -> ApplicationView:
        application_id = new_id()
        async with db.begin(caller.actor) as tx:
            made = await create_application(
                tx, keyring, caller, data.asked(),
                application_no=data.application_no, application_id=application_id,
            )  # fmt: skip
            await use.take(tx, made.id)
        return await _view(db, made)

    async def resume(application_id: UUID) -> ApplicationView:
        return await _view(db, await queries.application_with_id(db, application_id))

    return await answer_once(request, db, fresh=fresh, resume=resume)


@get("/v1/applications", opt=needs("applications:read"))
async def get_applications(
    db: Db,
    caller: Caller,
    *,
    status: ApplicationState | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[ApplicationView]:
    """Return the applications the caller made, newest first."""
    wanted = queries.ApplicationFilter(
        merchant_id=caller.merchant_id, mode=caller.mode, state=status
    )
    page = await queries.list_applications(db, wanted, cursor=cursor, limit=limit)
    return Page([await _view(db, each) for each in page.items], page.next_cursor)


@get(
    "/v1/applications/{application_id:str}",
    opt=needs("applications:read", refuses=[ApplicationNotFound]),
)
async def get_application(application_id: str, db: Db, caller: Caller) -> ApplicationView:
    """Return one application."""
    return await _view(db, await _own(db, caller, application_id))


@post(
    "/v1/applications/{application_id:str}/amend",
    status_code=200,
    opt=needs(
        "applications:write",
        refuses=[*_NUMBERS, ApplicationNotFound, ApplicationNotOpenForThis, IdentityFixed],
        request_example=msgspec.convert(_SAID, ApplicationBody, from_attributes=True),
    ),
)
async def amend_one_application(
    application_id: str, data: ApplicationBody, *, db: Db, keyring: Keyring, caller: Caller
) -> ApplicationView:
    """Replace what a draft says; of an opened merchant, what its channels found wrong."""
    found = await _own(db, caller, application_id)
    async with db.begin(caller.actor) as tx:
        amended = await amend_application(tx, keyring, found.id, data.asked())
    return await _view(db, amended)


@post(
    "/v1/applications/{application_id:str}/documents",
    status_code=200,
    opt=needs(
        "applications:write",
        refuses=[
            ApplicationNotFound,
            ApplicationNotOpenForThis,
            DocumentTooLarge,
            DocumentTypeRefused,
        ],
        request_example=AddDocument(DocumentKind.STORE_FRONT, _PICTURE),
    ),
)
async def post_document(
    application_id: str, data: AddDocument, *, db: Db, blobs: Blobs, caller: Caller
) -> DocumentView:
    """Add a picture, kept encrypted. Sending the same again changes nothing."""
    found = await _own(db, caller, application_id)
    try:
        content = b64decode(data.content, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidValue(param="$.content", reason="not base64") from None
    return view_document(
        await add_document(db, blobs, found, data.kind, content, actor=caller.actor)
    )


@post(
    "/v1/applications/{application_id:str}/submit",
    status_code=200,
    opt=needs(
        "applications:write",
        refuses=[
            ApplicationNotFound,
            ApplicationNotOpenForThis,
            LicenceExpired,
            IdentityExpired,
            DocumentsMissing,
            FirmTakenOn,
            TermsUnsigned,
        ],
    ),
)
async def submit_one_application(
    application_id: str, *, db: Db, keyring: Keyring, licence: Licence, caller: Caller
) -> ApplicationView:
    """Hand the application in; one that is in already is returned as it is."""
    found = await _own(db, caller, application_id)
    if found.state in _SUBMITTED:
        return await _view(db, found)
    async with db.begin(caller.actor) as tx:
        submitted = await submit(tx, keyring, licence, found.id)
    return await _view(db, submitted)


@post(
    "/v1/applications/{application_id:str}/withdraw",
    status_code=200,
    opt=needs("applications:write", refuses=[ApplicationNotFound, ApplicationNotOpenForThis]),
)
async def withdraw_one_application(application_id: str, db: Db, caller: Caller) -> ApplicationView:
    """Take the application back; safe to repeat."""
    found = await _own(db, caller, application_id)
    if found.state is not ApplicationState.WITHDRAWN:
        async with db.begin(caller.actor) as tx:
            found = await withdraw_application(tx, found.id)
    return await _view(db, found)


@post(
    "/v1/applications/{application_id:str}/first_key",
    status_code=200,
    opt=needs(
        "applications:write",
        idempotent=True,
        refuses=[ApplicationNotFound, ApplicationNotOpenForThis, KeyShown],
    ),
)
async def take_first_key(
    application_id: str, request: ApiRequest, *, db: Db, keyring: Keyring, caller: Caller
) -> Response[FirstKey]:
    """Hand out the opened merchant's first key, once. When the answer is lost, roll the key."""

    async def fresh(use: Idempotency) -> FirstKey:
        found = await _own(db, caller, application_id)
        found.check_in(ApplicationState.OPENED, ApplicationState.FORWARDED)
        async with db.begin(caller.actor) as tx:
            await use.take(tx, found.id)
            if await store.SHOW_KEY.first(tx, found.id, tx.now) is None:
                raise KeyShown
        return await _key_view(db, keyring, found, is_shown=True)

    async def resume(_application_id: UUID) -> FirstKey:
        found = await _own(db, caller, application_id)
        return await _key_view(db, keyring, found, is_shown=False)

    return await answer_once(request, db, fresh=fresh, resume=resume, stored=_without_secret)


def routes(licence: Licence) -> list[HTTPRouteHandler]:
    """Return the routes under a licence: only who settles has terms of its own to be signed."""
    return [*ROUTES, *(TERMS_ROUTES if licence.may_hold_funds else [])]


ROUTES: Final[list[HTTPRouteHandler]] = [
    post_application,
    get_applications,
    get_application,
    amend_one_application,
    post_document,
    post_file,
    submit_one_application,
    withdraw_one_application,
    take_first_key,
]
_SUBMITTED: Final = frozenset(
    {ApplicationState.SUBMITTED, ApplicationState.OPENED, ApplicationState.FORWARDED}
)


async def _own(db: Db, caller: Caller, application_id: str) -> Application:
    return await queries.application_of_caller(db, caller, parse(PREFIX, application_id))


async def _view(db: Db, application: Application) -> ApplicationView:
    form, opened = application.form, application.opened_merchant_id
    return ApplicationView(
        id=show(PREFIX, application.id),
        object="application",
        application_no=application.application_no,
        mode=application.mode,
        status=application.state,
        firm=form.firm,
        trade=form.trade,
        personal=application.masked,
        channels=form.channels,
        prices=form.prices,
        settlement_delay_days=form.settlement_delay_days,
        documents=[view_document(each) for each in await queries.documents_of(db, application.id)],
        created_at=application.created_at,
        note=application.note or UNSET,
        merchant_id=UNSET if opened is None else show("mch", opened),
        submitted_at=application.submitted_at or UNSET,
        ended_at=application.ended_at or UNSET,
    )


async def _key_view(
    db: Db, keyring: Keyring, application: Application, *, is_shown: bool
) -> FirstKey:
    if application.key_id is None or application.opened_merchant_id is None:
        raise LookupError("an opened application has a merchant and a key")
    merchant_id = application.opened_merchant_id
    key = await key_of_merchant(db, application.key_id, merchant_id, application.mode)
    return FirstKey(
        id=show(PREFIX, application.id),
        object="first_key",
        merchant_id=show("mch", merchant_id),
        key_id=show("key", key.id),
        scopes=key.scopes,
        secret=secret_of_key(keyring, key).reveal() if is_shown else UNSET,
    )


def _without_secret(view: FirstKey) -> FirstKey:
    return msgspec.structs.replace(view, secret=UNSET)
