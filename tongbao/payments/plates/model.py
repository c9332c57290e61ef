"""What a plate is, and the EMV text that some scanners want instead of an address. No I/O.

active ─► revoked    for good: a printed code that was given up never means anything else
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from tongbao.kernel.codecs import emv_qr_merchant as emv
from tongbao.kernel.codecs.emv_qr_merchant import Part, Template
from tongbao.kernel.errors import Invalid, NotFound, Overloaded, Rejected
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.payments.checkouts.model import PREFIX

PLATE: Final = "plate_id"
"""Where the metadata of a payment names the plate that it began at."""

OPENED_PER_MINUTE_MAX: Final = 60
"""Checkouts that one plate opens; a busy counter has a customer every few seconds."""

# ISO 4217 numbers of the currencies that codes of ours are made in.
CURRENCY_NUMBERS: Final = {"CNY": "156", "HKD": "344", "MOP": "446", "TWD": "901", "USD": "840"}
_COUNTRY: Final = "CN"
_ACCOUNT: Final = "26"  # the first account template that nobody else has
_GUID_LENGTH_MAX: Final = 32


class PlateNotFound(NotFound):
    """The caller has no such plate."""

    code = "plate.not_found"
    advice = "List the plates to find its id."
    advice_zh = "请通过码牌列表查找正确的标识。"


class PlateRevoked(NotFound):
    """The plate was given up by its merchant."""

    code = "plate.revoked"
    advice = "Ask the merchant for the code in use."
    advice_zh = "该收款码已停用，请向商户索取新的收款码。"


class PlateBusy(Overloaded):
    """More payments were begun at one plate within a minute than a counter can have customers."""

    code = "plate.busy"
    advice = "Wait half a minute and try again; nothing was paid."
    advice_zh = "当前付款人数过多，请半分钟后再试；本次未发生扣款。"
    retry_after_s = 30


class PlateAmountDiffers(Invalid):
    """The plate has a fixed amount, and another one was sent."""

    code = "plate.amount_differs"
    advice = "Open the plate again and pay the amount it shows."
    advice_zh = "该收款码为固定金额，请重新打开后按所示金额支付。"


class PlateCurrencyUnknown(Rejected):
    """There is no EMV code of ours in this currency."""

    code = "plate.currency_unknown"
    advice = "Leave emv out, or use CNY, HKD, MOP, TWD or USD."
    advice_zh = "该币种不支持 EMV 码，请去掉 emv 或改用 CNY、HKD、MOP、TWD、USD。"


class PlateState(StrEnum):
    """Whether a plate opens the cashier."""

    ACTIVE = "active"
    REVOKED = "revoked"


class Plate(Struct, frozen=True):
    """One row of the plate table."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    token: str
    name: str
    subject: str
    amount: int | None
    currency: str
    emv_text: str | None
    created_at: datetime
    revoked_at: datetime | None

    @property
    def state(self) -> PlateState:
        """Whether it opens the cashier."""
        return PlateState.ACTIVE if self.revoked_at is None else PlateState.REVOKED

    @property
    def path(self) -> str:
        """Where its page is."""
        return f"{PREFIX}/p/{self.token}"


class EmvAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """What an EMV code says of a merchant beside where to pay.

    ``category`` is the ISO 18245 merchant category code; name and city are in Latin letters.
    """

    category: Annotated[str, Meta(pattern=r"^[0-9]{4}(?!\n)$")]
    name: Annotated[str, Meta(min_length=1, max_length=25, pattern=r"^[ -~]+(?!\n)$")]
    city: Annotated[str, Meta(min_length=1, max_length=15, pattern=r"^[ -~]+(?!\n)$")]


class PlateView(Struct, frozen=True, omit_defaults=True):
    """A plate as the API shows it. ``url`` is what its code says; the image is that code, drawn."""

    id: str
    object: Literal["plate"]
    mode: Mode
    name: str
    subject: str
    currency: str
    status: PlateState
    url: str
    image_url: str
    created_at: datetime
    amount: int | UnsetType = UNSET
    emv_text: str | UnsetType = UNSET
    revoked_at: datetime | UnsetType = UNSET


def view_plate(plate: Plate, public_url: str) -> PlateView:
    """Return the plate as the API shows it."""
    return PlateView(
        id=show("plt", plate.id),
        object="plate",
        mode=plate.mode,
        name=plate.name,
        subject=plate.subject,
        currency=plate.currency,
        status=plate.state,
        url=f"{public_url}{plate.path}",
        image_url=f"{public_url}{plate.path}/code.svg",
        created_at=plate.created_at,
        amount=plate.amount or UNSET,
        emv_text=plate.emv_text or UNSET,
        revoked_at=plate.revoked_at or UNSET,
    )


def emv_text(
    asked: EmvAsked, money: Money | None, currency: str, *, token: str, public_url: str, name: str
) -> str:
    """Return the EMV text of a plate: our account template with its token, the merchant around it.

    Raises:
        PlateCurrencyUnknown, EmvQrTooLong, EmvQrFieldMalformed
    """
    if currency not in CURRENCY_NUMBERS:
        raise PlateCurrencyUnknown(param="$.currency", currency=currency)
    account = Template(_ACCOUNT, (Part("00", _reversed_host(public_url)), Part("01", token)))
    other = (
        []
        if name.isascii()
        else [Template(emv.LANGUAGE, (Part("00", "ZH"), Part("01", name[:25])))]
    )
    code = emv.compose(
        accounts=[account],
        category=asked.category,
        currency=CURRENCY_NUMBERS[currency],
        country=_COUNTRY,
        name=asked.name,
        city=asked.city,
        amount=money.decimal_text() if money is not None else None,
        more=other,
    )
    return emv.encode(code)


def _reversed_host(public_url: str) -> str:
    """Return who we are among the owners of account templates: our domain, its end first."""
    host = urlsplit(public_url).hostname or "localhost"
    return ".".join(reversed(host.split(".")))[:_GUID_LENGTH_MAX]
