"""Routes of one's own cards: bank cards that are bound, and virtual cards of an account.

A bank card's number goes in and never comes out. A virtual card's comes out when it is issued.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from litestar import get, post, put
from msgspec import Meta, Struct

from tongbao.infra.kms.port import KmsUnavailable
from tongbao.infra.serving.device_api import SELF, DeviceCaller
from tongbao.infra.web.caller import needs
from tongbao.kernel.card_numbers import masked
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import AmountOutOfRange, UnknownCurrency, positive
from tongbao.parties.authentication.model import (
    CodesTooMany,
    CodeWrong,
    ConfirmationUsed,
    StepUpRequired,
)
from tongbao.parties.authentication.step_up import CODE_PREFIX, Confirmed
from tongbao.parties.bound_cards import binding, queries
from tongbao.parties.bound_cards.binding import Binder, NewCard
from tongbao.parties.bound_cards.model import (
    PREFIX as CARD,
)
from tongbao.parties.bound_cards.model import (
    BindingBarred,
    BindingOver,
    BindingsTooMany,
    BoundCard,
    BoundCardNotFound,
    BoundState,
    CardBoundAlready,
    CardHolderUnknown,
    CardInUse,
    CardNotTaken,
    CardNotVerified,
    NoVerifier,
)
from tongbao.parties.card_bins.bins import issuer_name
from tongbao.parties.card_bins.model import BinKind
from tongbao.parties.e_accounts.model import PREFIX as ACCOUNT
from tongbao.parties.e_accounts.model import EAccount, EAccountNotFound, EAccountStateWrong
from tongbao.parties.e_accounts.opening import device_of
from tongbao.parties.e_accounts.orders import Teller
from tongbao.parties.e_accounts.queries import account_of_person
from tongbao.parties.people.contacts import read_contact
from tongbao.parties.people.model import ContactMalformed
from tongbao.parties.people.sessions import current_person
from tongbao.parties.vault.model import CardExpired, CardNumberWrong, Number
from tongbao.parties.virtual_cards import cards as virtual_cards
from tongbao.parties.virtual_cards.model import PREFIX as VIRTUAL
from tongbao.parties.virtual_cards.model import (
    CardDeclined,
    CardLimits,
    CardLimitsWrong,
    GuessesTooMany,
    VirtualCardClosed,
    VirtualCardNotFound,
    VirtualCardsTooMany,
)
from tongbao.payments.card_agreements.signing import unbind
from tongbao.surfaces.wallet.desk import PREFIX, CodeField, ContactField, Desk, step_up, take
from tongbao.surfaces.wallet.e_account_wire import (
    CardChargeView,
    ChargeCard,
    IssueVirtualCard,
    VirtualCardView,
    view_virtual_card,
)

_AT = f"{PREFIX}/bank_cards/{{card_id:str}}"
_VIRTUAL = f"{PREFIX}/e_accounts/{{account_id:str}}/virtual_cards"
_STEP_UP: tuple[Any, ...] = (StepUpRequired, ConfirmationUsed)
Kind = Literal["debit", "credit"]


class BindBankCard(Struct, frozen=True, forbid_unknown_fields=True):
    """Bind a card of one's own. There is no field for a security code: it is not taken."""

    number: Annotated[str, Meta(pattern=r"^[0-9]{13,19}(?!\n)$")]
    expiry: Annotated[str, Meta(pattern=r"^[0-9]{2}(0[1-9]|1[0-2])(?!\n)$", description="YYMM")]
    phone: ContactField  # that the bank has of the card's holder

    def __repr__(self) -> str:
        return "BindBankCard(…)"


class ConfirmBankCard(Struct, frozen=True, forbid_unknown_fields=True):
    """The code that went to the card's phone."""

    code_id: CodeField
    code: CodeField


class BankCardView(Struct, frozen=True, kw_only=True):
    """One of one's own bank cards; never more of its number than first six and last four."""

    id: str
    object: Literal["bank_card"]
    issuer: str
    issuer_name: str
    brand: str
    kind: Kind
    bin: str
    last4: str
    phone_masked: str
    status: BoundState
    is_default: bool
    created_at: datetime
    bound_at: datetime | None


class AskedBankCardView(Struct, frozen=True, kw_only=True):
    """A card that its bank has verified, and the code that confirms it from the card's phone."""

    object: Literal["bank_card_binding"]
    card: BankCardView
    code_id: str
    expires_at: datetime


@post(
    f"{PREFIX}/bank_cards",
    opt=needs(
        SELF,
        refuses=[
            *(NoVerifier, CardHolderUnknown, CardNotTaken, CardNumberWrong, CardExpired),
            BindingBarred,
            *(CardBoundAlready, BindingsTooMany, CardNotVerified, CodesTooMany, ContactMalformed),
            *(KmsUnavailable, BindingOver, *_STEP_UP),
        ],
    ),
)
async def bind_bank_card(
    data: BindBankCard, desk: Desk, binder: Binder, caller: DeviceCaller
) -> AskedBankCardView:
    """Ask the card's bank whether name, id, number and phone belong together; send a code there."""
    person = await current_person(desk.db, caller)
    phone = read_contact(data.phone)
    act = f"bank_card.bind {masked(data.number)}"
    confirmed = await step_up(desk, caller, "security", act)
    new = NewCard(
        Number(data.number, data.expiry),
        phone,
        device_of(caller.current.key.der),
        caller.source,
    )
    asked = await binding.ask_to_bind(binder, person, new, confirmed)
    return AskedBankCardView(
        object="bank_card_binding",
        card=_view(asked.card),
        code_id=show(CODE_PREFIX, asked.sent.code_id),
        expires_at=asked.sent.expires_at,
    )


@post(
    f"{_AT}/confirm",
    status_code=200,
    opt=needs(
        SELF,
        refuses=[
            *(BoundCardNotFound, CodeWrong, BindingOver, BindingsTooMany, CardBoundAlready),
            BindingBarred,
        ],
    ),
)
async def confirm_bank_card(
    card_id: str, data: ConfirmBankCard, desk: Desk, binder: Binder, caller: DeviceCaller
) -> BankCardView:
    """Bind a verified card by the code from its phone; the first one is the default card."""
    person = await current_person(desk.db, caller)
    card = await _card(desk, caller, card_id)
    wanted = parse(CODE_PREFIX, data.code_id)
    bound = await binding.confirm_binding(binder, person, card, code_id=wanted, code=data.code)
    return _view(bound)


@get(f"{PREFIX}/bank_cards", opt=needs(SELF))
async def list_bank_cards(desk: Desk, caller: DeviceCaller) -> list[BankCardView]:
    """Return the cards that are bound, the default one first."""
    found = await queries.cards_of_person(desk.db, caller.current.person_id, caller.mode)
    return [_view(each) for each in found]


@get(_AT, opt=needs(SELF, refuses=[BoundCardNotFound]))
async def get_bank_card(card_id: str, desk: Desk, caller: DeviceCaller) -> BankCardView:
    """Return one card, or one try to bind one."""
    return _view(await _card(desk, caller, card_id))


@post(
    f"{_AT}/default",
    status_code=200,
    opt=needs(SELF, refuses=[BoundCardNotFound, BindingOver, *_STEP_UP]),
)
async def choose_bank_card(card_id: str, desk: Desk, caller: DeviceCaller) -> BankCardView:
    """Make a card the one that money moves over where none is named."""
    person, card = await current_person(desk.db, caller), await _card(desk, caller, card_id)
    confirmed = await step_up(desk, caller, "security", f"bank_card.default {card.shown_id}")
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
        return _view(await binding.make_default(tx, person, card))


@post(
    f"{_AT}/unbind",
    status_code=200,
    opt=needs(SELF, refuses=[BoundCardNotFound, BindingOver, CardInUse, *_STEP_UP]),
)
async def unbind_bank_card(card_id: str, desk: Desk, caller: DeviceCaller) -> BankCardView:
    """Let go of a card; its number is forgotten, and what was signed with it ends.

    Not while money is on its way over it.
    """
    card = await _card(desk, caller, card_id)
    confirmed = await step_up(desk, caller, "security", f"bank_card.unbind {card.shown_id}")
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
        return _view(await unbind(tx, card))


@post(
    _VIRTUAL,
    opt=needs(
        SELF,
        refuses=[
            *(EAccountNotFound, EAccountStateWrong, CardLimitsWrong, VirtualCardsTooMany),
            *(KmsUnavailable, *_STEP_UP),
        ],
    ),
)
async def issue_virtual_card(
    account_id: str, data: IssueVirtualCard, desk: Desk, binder: Binder, caller: DeviceCaller
) -> VirtualCardView:
    """Issue a card that pays from an account; its number is in this answer and in no other."""
    account = await _account(desk, caller, account_id)
    act = f"virtual_card.issue {account.shown_id} {data.request_id}"
    confirmed = await step_up(desk, caller, "security", act)
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
        issued = await virtual_cards.issue(
            tx, binder.keys, account, data.limits, request_id=data.request_id
        )
    return view_virtual_card(issued.card, issued.number)


@get(_VIRTUAL, opt=needs(SELF, refuses=[EAccountNotFound]))
async def list_virtual_cards(
    account_id: str, desk: Desk, caller: DeviceCaller
) -> list[VirtualCardView]:
    """Return the virtual cards of an account, closed ones too, without their numbers."""
    account = await _account(desk, caller, account_id)
    return [view_virtual_card(each) for each in await virtual_cards.cards_of(desk.db, account)]


@post(
    f"{_VIRTUAL}/{{card_id:str}}/{{act:str}}",
    status_code=200,
    opt=needs(
        SELF,
        refuses=[EAccountNotFound, VirtualCardNotFound, VirtualCardClosed, *_STEP_UP],
    ),
)
async def move_virtual_card(
    account_id: str, card_id: str, act: str, desk: Desk, caller: DeviceCaller
) -> VirtualCardView:
    """Do to a card what ``act`` says: ``freeze`` at once, ``unfreeze`` or ``close`` confirmed."""
    if act not in {"freeze", "unfreeze", "close"}:
        raise VirtualCardNotFound
    account = await _account(desk, caller, account_id)
    card = await virtual_cards.card_of_account(desk.db, account, parse(VIRTUAL, card_id))
    confirmed = Confirmed(None)
    if act != "freeze":
        confirmed = await step_up(desk, caller, "security", f"virtual_card.{act} {card.shown_id}")
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
        if act == "close":
            return view_virtual_card(await virtual_cards.close(tx, card))
        moved = await virtual_cards.set_frozen(tx, card, is_frozen=act == "freeze")
    return view_virtual_card(moved)


@put(
    f"{_VIRTUAL}/{{card_id:str}}/limits",
    opt=needs(
        SELF,
        refuses=[
            *(EAccountNotFound, VirtualCardNotFound, VirtualCardClosed, CardLimitsWrong),
            *_STEP_UP,
        ],
    ),
)
async def limit_virtual_card(
    account_id: str, card_id: str, data: CardLimits, desk: Desk, caller: DeviceCaller
) -> VirtualCardView:
    """Give a card other limits; what it has paid stays counted."""
    account = await _account(desk, caller, account_id)
    card = await virtual_cards.card_of_account(desk.db, account, parse(VIRTUAL, card_id))
    said = f"{data.each_max} {data.day_max} {data.total_max}"
    confirmed = await step_up(
        desk, caller, "security", f"virtual_card.limits {card.shown_id} {said}"
    )
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
        return view_virtual_card(await virtual_cards.set_limits(tx, card, data))


@post(
    f"{PREFIX}/e_accounts/{{account_id:str}}/card_charges",
    opt=needs(
        SELF,
        refuses=[
            *(EAccountNotFound, CardDeclined, GuessesTooMany, AmountOutOfRange, UnknownCurrency)
        ],
    ),
)
async def charge_virtual_card(
    account_id: str,
    data: ChargeCard,
    desk: Desk,
    caller: DeviceCaller,
    *,
    teller: Teller,
    binder: Binder,
) -> CardChargeView:
    """Take money from a virtual card into one's account; only the sandbox takes them yet."""
    money = positive(data.amount, data.currency)
    account = await _account(desk, caller, account_id)
    if caller.mode is not Mode.SANDBOX:
        raise CardDeclined
    number = Number(data.card_number, data.expiry)
    paid = await virtual_cards.pay_by_card(
        teller, binder.keys, account, number, money=money, request_id=data.request_id
    )
    return CardChargeView(
        object="card_charge",
        order_id=paid.shown_id,
        amount=paid.amount,
        currency=paid.currency,
        paid_at=paid.ended_at or paid.made_at,
    )


ROUTES = [
    issue_virtual_card,
    list_virtual_cards,
    move_virtual_card,
    limit_virtual_card,
    charge_virtual_card,
    bind_bank_card,
    confirm_bank_card,
    list_bank_cards,
    get_bank_card,
    choose_bank_card,
    unbind_bank_card,
]


async def _card(desk: Desk, caller: DeviceCaller, card_id: str) -> BoundCard:
    wanted = parse(CARD, card_id)
    return await binding.card_of_person(desk.db, caller.current.person_id, caller.mode, wanted)


async def _account(desk: Desk, caller: DeviceCaller, account_id: str) -> EAccount:
    wanted = parse(ACCOUNT, account_id)
    return await account_of_person(desk.db, caller.mode, caller.current.person_id, wanted)


def _view(row: BoundCard) -> BankCardView:
    kind: Kind = "debit" if row.kind is BinKind.DEBIT else "credit"
    return BankCardView(
        id=row.shown_id,
        object="bank_card",
        issuer=row.issuer,
        issuer_name=issuer_name(row.issuer),
        brand=row.brand,
        kind=kind,
        bin=row.bin,
        last4=row.last4,
        phone_masked=row.phone_masked,
        status=row.state,
        is_default=row.is_default,
        created_at=row.asked_at,
        bound_at=row.bound_at,
    )
