"""What is asked of a channel: on which account of ours, and which order or refund."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.outcomes import Authorised, Declined, NotSent


class PayMode(StrEnum):
    """How the customer meets the payment."""

    QR = "qr"  # we show a code, the customer scans it (WeChat Native, Alipay precreate)
    PAYMENT_CODE = "payment_code"  # the customer shows a code, the merchant scans it (付款码)
    IN_APP = "in_app"  # a page or mini-program inside the channel's own app (JSAPI)
    APP = "app"  # the merchant's app opens the channel's app
    H5 = "h5"  # a phone's browser goes to the channel and comes back
    WEB = "web"  # a desktop browser goes to the channel and comes back
    AGREEMENT = "agreement"  # taken under an agreement the customer signed before (代扣)
    CARD = "card"  # a card, read by a terminal or keyed in


PlateColour = Literal["BLUE", "GREEN", "YELLOW", "BLACK", "WHITE", "LIMEGREEN"]


class ChannelAccount(Struct, frozen=True):
    """Our account at a channel: where to call it and the keys of this mode.

    ``secrets`` is the channel's own Struct, decrypted; it is never logged.
    """

    id: UUID
    channel: str
    mode: Mode
    gateway: str  # where its paths begin: https, no trailing slash
    merchant_number: str  # mchid at WeChat Pay, seller pid at Alipay
    app_id: str
    notify_url: str  # where the channel sends callbacks for this account
    fee_ppm: int  # what the channel charges us, parts per million of the amount
    secrets: Struct
    is_open: bool = True  # whether it takes new payments; what is under way always goes on


class PayOrder(Struct, frozen=True):
    """One try to collect, in the channel's terms. ``number`` is our idempotency key there."""

    number: str  # 26 base32 characters of the attempt id
    mode: PayMode
    money: Money
    subject: str
    expires_at: datetime
    auth_code: str | None = None  # what the customer's payment code said
    client_ip: str = "127.0.0.1"
    store_id: str = "0001"
    payer_id: str | None = None  # the channel's id of the customer: openid, buyer id
    return_url: str | None = None  # where the customer's browser comes back to
    agreement_ref: str | None = None  # the channel's number of the agreement to take it under
    captures: bool = True  # False: only authorise, to be captured or voided later
    card: CardRead | None = None
    card_terminal: str | None = (
        None  # that read the card, also where the card is not known any more
    )
    app_id: str | None = None  # of the page or app that asks, where it is not the account's own
    combined: str | None = None  # our number of the combined order that it is a part of
    visit: str | None = None  # our number of the visit to a car park that it is the fee of
    stay: CarStay | None = None  # what a visit's fee is charged for; only the first call knows


class CarVisit(Struct, frozen=True):
    """One visit of a car to a car park; ``number`` is ours."""

    number: str
    plate: str
    colour: PlateColour
    place: str
    lot: str
    entered_at: datetime
    free_s: int

    def __repr__(self) -> str:  # a person's car
        return f"CarVisit({self.number})"


class CarStay(Struct, frozen=True):
    """What a fee is taken for: one stay of a car at a car park. Never stored or logged."""

    visit: CarVisit
    ref: str  # the channel's number of the entrance, where it gives one
    left_at: datetime
    device: str


class ParkingFee(Struct, frozen=True):
    """A fee that was taken, for a channel that keeps the driver's parking orders."""

    number: str
    channel_ref: str
    payer: str
    money: Money
    asked_at: datetime
    paid_at: datetime


class CardRead(Struct, frozen=True):
    """What a terminal read of a card. Goes to the channel and nowhere else: never stored or logged.

    ``pin_block`` is encrypted for the acquirer already (ISO 9564-1 format 0 or 4).
    """

    number: str
    expiry: str  # YYMM
    entry: str  # point-of-service entry mode, ISO 8583 field 22
    track2: str | None = None
    sequence: str | None = None  # card sequence number, field 23
    chip: bytes | None = None  # EMV data, field 55
    pin_block: bytes | None = None
    terminal: str = ""  # field 41
    merchant: str = ""  # field 42
    token: TokenRead | None = None  # stands for the card, whose number is not here then

    def __repr__(self) -> str:
        return "CardRead(…)"


class TokenRead(Struct, frozen=True):
    """A token in place of a card, who wants to use it, and what its device proves that with."""

    merchant_id: UUID
    mode: Mode
    number: str
    key_number: int | None = None
    counter: int | None = None
    cryptogram: str | None = None


class Detokenise(Protocol):
    """Who knows the card behind a token. Asked just before sending, with no transaction open."""

    async def __call__(self, token: TokenRead, order: PayOrder) -> CardRead | Declined | NotSent:
        """Return the card for this order alone, or why there is none."""


class RefundOrder(Struct, frozen=True):
    """One refund of a captured order; ``number`` is our idempotency key at the channel."""

    number: str  # 26 base32 characters of the refund id
    order_number: str  # of the order, or of the capture where it had only authorised
    money: Money
    order_money: Money
    reason: str = ""
    order_ref: str | None = None  # the channel's own number of what is given back, where known
    order_mode: PayMode | None = None  # how the customer met it, where known
    order_app: str | None = None  # its app, where it was not the account's own
    to: RefundTarget | None = None  # where else, once it could not go back the way it came
    authorised: Authorised | None = None  # before; where all is given back that was captured then
    captured_at: datetime | None = None
    of_capture: bool = False  # whether ``order_number`` is a capture's
    card_terminal: str | None = None  # that read the card


class RefundTarget(Struct, frozen=True):
    """Where a refund goes that the customer's card or account could not take. Never logged."""

    kind: Literal["customer_card", "merchant_account"]
    bank: str = ""  # the channel's code of the card's bank
    account: str = ""
    name: str = ""

    def __repr__(self) -> str:
        return "RefundTarget(…)"
