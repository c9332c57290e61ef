"""Payment initiation: a payment is lodged, authorised by somebody, and made once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.kernel.money import AmountMalformed, Money, UnknownCurrency, from_decimal_text
from tongbao.parties.accounts.queries import find_wallet
from tongbao.parties.consents.holdings import book_of, held
from tongbao.parties.consents.lodging import LodgedDifferently, lodge_once, lodged
from tongbao.parties.consents.model import (
    ONCE_LIFE,
    PAYMENT_PREFIX,
    Consent,
    ConsentNotFound,
    ConsentPayment,
    Wish,
)
from tongbao.parties.consents.paying import pay_by_consent, payment_of, payment_with_id
from tongbao.parties.partners.model import Kind, Partner
from tongbao.parties.partners.partners import partner_with_id
from tongbao.surfaces.open_bank.desk import Desk
from tongbao.surfaces.open_bank.protocol import Asked, json_reply
from tongbao.surfaces.open_bank.resources import accounts_of, has_funds
from tongbao.surfaces.page_kit.replies import Reply
from tongbao.surfaces.uk_open_banking import shapes
from tongbao.surfaces.uk_open_banking.accounts import own_consent
from tongbao.surfaces.uk_open_banking.shapes import Answer, ConsentAnswer, Links, Refused
from tongbao.surfaces.uk_open_banking.signing import check_signed

PISP: Final = "/open-banking/v4.0/pisp"
CONSENTS: Final = f"{PISP}/domestic-payment-consents"
PAYMENTS: Final = f"{PISP}/domestic-payments"
_KIND: Final = Kind.PAYMENT_INITIATION
_KEY: Final = "x-idempotency-key"
_KEY_LENGTH_MAX: Final = 40
_STATUS: Final[Mapping[str, Literal["AWAU", "AUTH", "RJCT", "COND"]]] = {
    "awaiting": "AWAU",
    "authorised": "AUTH",
    "consumed": "COND",
    "rejected": "RJCT",
    "revoked": "RJCT",  # a consent to pay has no words for having been ended, or for its time
    "expired": "RJCT",
}


async def lodge_payment(
    desk: Desk, asked: Asked, partner: Partner, _params: Mapping[str, str]
) -> Reply:
    """Lodge a payment that somebody will be asked for; the same key is the same consent.

    Raises:
        Refused
    """
    key = _key(asked)
    await check_signed(desk, asked, partner, key)
    said = shapes.read(asked.body, shapes.AskPayment)
    wish = await _wish(desk, partner, said)
    try:
        consent = await lodge_once(desk.db, partner, wish, key=key, body=asked.body)
    except LodgedDifferently as refusal:
        raise Refused("UK.OBIE.Header.Invalid", refusal.advice, _KEY) from None
    return json_reply(_consent_answer(desk, consent), status=201)


async def show_payment_consent(
    desk: Desk, _asked: Asked, partner: Partner, params: Mapping[str, str]
) -> Reply:
    """Return how a consent stands that the partner has lodged.

    Raises:
        ConsentNotFound
    """
    return json_reply(_consent_answer(desk, await own_consent(desk, partner, params, _KIND)))


async def confirm_payment_funds(
    desk: Desk, asked: Asked, consent: Consent, params: Mapping[str, str]
) -> Reply:
    """Say whether there is enough for the payment of the consent, yes or no.

    Raises:
        ConsentNotFound, AccountNotHeld, Refused
    """
    if params["ConsentId"] != consent.shown_id:
        raise ConsentNotFound
    money = consent.money
    if money is None or await payment_of(desk.db, consent) is not None:
        raise Refused("UK.OBIE.Resource.InvalidConsentStatus", "The consent was used")
    payer = held(await accounts_of(desk, consent), show("wal", consent.accounts[0]))
    enough = await has_funds(desk, payer, money.amount, money.currency)
    found = shapes.FundsResult(shapes.Funds(enough, desk.db.clock.now()))
    return json_reply(Answer(found, Links(desk.issuer + asked.path)))


async def order_payment(
    desk: Desk, asked: Asked, consent: Consent, _params: Mapping[str, str]
) -> Reply:
    """Pay what was consented to, once however often it is asked for.

    Raises:
        Refused, ConsentEnded, AccountNotHeld, PaymentRefused, WalletFrozen, DailyLimitExceeded
    """
    key = _key(
        asked
    )  # the consent itself keeps it to once; the specification wants one all the same
    partner = await partner_with_id(desk.db, consent.partner_id)
    await check_signed(desk, asked, partner, key)
    said = shapes.read(asked.body, shapes.OrderPayment)
    same = shapes.told(said.data.initiation) == _said(consent).get("Initiation")
    if said.data.consent_id != consent.shown_id or not same or said.risk != _said(consent)["Risk"]:
        message = "The payment is not the one that was consented to"
        raise Refused("UK.OBIE.Resource.ConsentMismatch", message, "Data.Initiation")
    before = await payment_of(desk.db, consent)
    payment = before or await pay_by_consent(desk.db, desk.ledger, consent)
    return json_reply(_payment_answer(desk, consent, payment), status=201)


async def show_domestic_payment(
    desk: Desk, _asked: Asked, partner: Partner, params: Mapping[str, str]
) -> Reply:
    """Return a payment that the partner has made.

    Raises:
        ConsentNotFound
    """
    try:
        wanted = parse(PAYMENT_PREFIX, params["DomesticPaymentId"])
    except UnknownId:
        raise ConsentNotFound from None
    payment = await payment_with_id(desk.db, partner, wanted)
    consent = await lodged(desk.db, partner, payment.consent_id, _KIND)
    return json_reply(_payment_answer(desk, consent, payment))


def _key(asked: Asked) -> str:
    key = asked.header(_KEY)
    if key is None:
        raise Refused("UK.OBIE.Header.Missing", "An idempotency key is needed", _KEY)
    if not (0 < len(key) <= _KEY_LENGTH_MAX and key.isascii() and key.isprintable()):
        raise Refused("UK.OBIE.Header.Invalid", "A key has 1 to 40 characters", _KEY)
    return key


async def _wish(desk: Desk, partner: Partner, said: shapes.AskPayment) -> Wish:
    """Return the payment in our own words, if somebody can be paid like this.

    Raises:
        Refused
    """
    initiation, at = said.data.initiation, "Data.Initiation.CreditorAccount"
    creditor = initiation.creditor_account
    if creditor.scheme_name != shapes.WALLET:
        message = f"Payees are identified by {shapes.WALLET}"
        raise Refused("UK.OBIE.Unsupported.AccountIdentifier", message, f"{at}.SchemeName")
    money = _money(initiation.instructed_amount)
    name = creditor.name.strip()
    remittance = initiation.remittance_information
    texts = [name, *((remittance.unstructured or []) if remittance else [])]
    if not name or len(name) > 64 or not all(each.isprintable() for each in texts):
        raise Refused("UK.OBIE.Field.Invalid", "A name or text cannot be shown", f"{at}.Name")
    try:
        payee = await find_wallet(
            desk.db, book_of(partner.mode), parse("wal", creditor.identification)
        )
    except UnknownId:
        payee = None
    if payee is None or payee.mode is not partner.mode or payee.currency != money.currency:
        message = "Nobody can be paid there like this"
        raise Refused("UK.OBIE.Field.Invalid", message, f"{at}.Identification")
    details: dict[str, Any] = {
        "type": _KIND.value,
        "amount": {"amount": money.amount, "currency": money.currency},
        "creditor": {"account": creditor.identification, "name": name},
        "remittance": " ".join(texts[1:]),
        "uk_open_banking": {**shapes.told(said.data), "Risk": said.risk},
    }
    end = desk.db.clock.now() + ONCE_LIFE
    return Wish(_KIND, details, [], money, payee.id, name, end)


def _money(amount: shapes.Amount) -> Money:
    at = "Data.Initiation.InstructedAmount"
    try:
        money = from_decimal_text(amount.amount, amount.currency)
    except UnknownCurrency:
        raise Refused("UK.OBIE.Unsupported.Currency", "No such currency", at) from None
    except AmountMalformed:
        raise Refused("UK.OBIE.Field.Invalid", "No such amount", f"{at}.Amount") from None
    if money.amount <= 0:
        raise Refused("UK.OBIE.Field.Invalid", "Nothing is to be paid", f"{at}.Amount")
    return money


def _said(consent: Consent) -> Mapping[str, Any]:
    found: Mapping[str, Any] = consent.details.get("uk_open_banking", {"Risk": None})
    return found


def _consent_answer(desk: Desk, consent: Consent) -> ConsentAnswer[shapes.PaymentConsent]:
    status = _STATUS[consent.status(desk.db.clock.now())]
    reasons = {"AWAU": [shapes.WAITS], "COND": [shapes.CONSUMED]}
    told = shapes.PaymentConsent(
        consent_id=consent.shown_id,
        creation_date_time=consent.created_at,
        status=status,
        status_update_date_time=consent.ended_at or consent.decided_at or consent.created_at,
        initiation=_said(consent).get("Initiation", {}),
        status_reason=reasons.get(status, []),
    )
    risk = _said(consent)["Risk"] or {}
    return ConsentAnswer(told, risk, Links(f"{desk.issuer}{CONSENTS}/{consent.shown_id}"))


def _payment_answer(
    desk: Desk, consent: Consent, payment: ConsentPayment
) -> Answer[shapes.Payment]:
    shown = show(PAYMENT_PREFIX, payment.payment_id)
    told = shapes.Payment(
        domestic_payment_id=shown,
        consent_id=consent.shown_id,
        creation_date_time=payment.paid_at,
        status="ACCC",
        status_update_date_time=payment.paid_at,
        initiation=_said(consent).get("Initiation", {}),
    )
    return Answer(told, Links(f"{desk.issuer}{PAYMENTS}/{shown}"))
