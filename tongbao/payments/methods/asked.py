"""How a merchant asks for a way of paying, and what each way needs to be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.rails.channels.contract.orders import CardRead, PayMode, TokenRead

ON_FILE: Final = "012"
"""ISO 8583 field 22 of a card that nobody reads: its number is given, and no PIN can be entered."""
AuthCode = Annotated[str, Meta(min_length=16, max_length=24, pattern=r"^[0-9]+(?!\n)$")]


class MethodFieldMissing(Invalid):
    """This way of paying needs a field that is absent."""

    code = "payment.method_field_missing"
    advice = "Add the field named in param; the guide lists what each mode needs."
    advice_zh = "该支付方式缺少 param 所示的字段，请按接口文档补充。"


class MethodFieldForeign(Invalid):
    """A field belongs to another way of paying."""

    code = "payment.method_field_foreign"
    advice = "Remove the field named in param, or choose the mode it belongs to."
    advice_zh = "param 所示字段不属于该支付方式，请删除或改用对应的支付方式。"


class HowAsked(Struct, frozen=True, omit_defaults=True):
    """What a channel is told of the customer beside the way of paying, in every call alike."""

    payer_id: str | None = None  # the channel's id of the customer: openid, buyer id
    return_url: str | None = None
    app_id: str | None = None
    agreement_id: UUID | None = None
    agreement_ref: str | None = None  # the channel's own number of that agreement
    combined_id: UUID | None = None  # of the combined payment that it is a part of
    visit_id: UUID | None = None  # of the visit to a car park that it is the fee of
    combined_try: UUID | None = None  # of the combined payment's try, where it is not the first
    card_terminal: str | None = None  # that read the card, by its number at the card host


class MethodView(Struct, frozen=True, omit_defaults=True):
    """How a payment is made, as the API shows it."""

    channel: str
    mode: PayMode
    agreement_id: str | UnsetType = UNSET
    combined_payment_id: str | UnsetType = UNSET
    parking_visit_id: str | UnsetType = UNSET


def view_method(channel: str, mode: PayMode, how: HowAsked | None) -> MethodView:
    """Return how a payment is made, with what it belongs to."""
    how = how or HowAsked()
    ids = {"agr": how.agreement_id, "cmb": how.combined_id, "prk": how.visit_id}
    shown = [UNSET if value is None else show(prefix, value) for prefix, value in ids.items()]
    return MethodView(channel, mode, *shown)


class CardReading(Struct, frozen=True, forbid_unknown_fields=True):
    """What a terminal read of a card; it goes to the acquirer and is kept nowhere.

    ``entry`` is the point-of-service entry mode of ISO 8583 (field 22), ``chip_hex`` the EMV data
    of field 55, ``pin_block_hex`` the PIN encrypted for the acquirer by the terminal.
    """

    number: Annotated[str, Meta(pattern=r"^[0-9]{12,19}(?!\n)$")]
    expiry: Annotated[str, Meta(pattern=r"^[0-9]{2}(0[1-9]|1[0-2])(?!\n)$", description="YYMM")]
    entry: Annotated[str, Meta(pattern=r"^[0-9]{3}(?!\n)$")]
    terminal: Annotated[str, Meta(pattern=r"^[0-9A-Za-z]{1,8}(?!\n)$")]
    merchant: Annotated[str, Meta(pattern=r"^[0-9A-Za-z]{1,15}(?!\n)$")]
    track2: Annotated[str, Meta(pattern=r"^[0-9=D]{13,37}(?!\n)$")] | None = None
    sequence: Annotated[str, Meta(pattern=r"^[0-9]{1,3}(?!\n)$")] | None = None
    chip_hex: Annotated[str, Meta(pattern=r"^([0-9A-Fa-f]{2}){1,255}(?!\n)$")] | None = None
    pin_block_hex: (
        Annotated[str, Meta(pattern=r"^([0-9A-Fa-f]{16}|[0-9A-Fa-f]{32})(?!\n)$")] | None
    ) = None

    def __repr__(self) -> str:
        return "CardReading(…)"

    @property
    def read(self) -> CardRead:
        """What the channel is given."""
        return CardRead(
            number=self.number,
            expiry=self.expiry,
            entry=self.entry,
            track2=self.track2,
            sequence=self.sequence,
            chip=bytes.fromhex(self.chip_hex) if self.chip_hex else None,
            pin_block=bytes.fromhex(self.pin_block_hex) if self.pin_block_hex else None,
            terminal=self.terminal,
            merchant=self.merchant,
        )


class CardToken(Struct, frozen=True, forbid_unknown_fields=True):
    """A token that stands for a card, as the vault gave it.

    One on a device comes with the number of its limited-use key, a counter and the cryptogram that
    the key makes of them and the amount.
    """

    number: Annotated[str, Meta(pattern=r"^[0-9]{13,19}(?!\n)$")]
    key_number: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    counter: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    cryptogram: Annotated[str, Meta(pattern=r"^[0-9A-Fa-f]{32}(?!\n)$")] | None = None


class MethodAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """How to collect, and what the way of paying needs to know of the customer.

    ``app``: the channel. ``payment_code``: the digits the customer shows, which say by themselves
    whose they are. ``in_app``: the channel and the customer's id there. ``h5``, ``web``: where the
    customer comes back to. ``agreement``: the agreement to collect under. ``card``: what the
    terminal read, or ``card_token`` in its place. ``app_id`` names the page or app that asks, where
    it is not the channel account's own; at UnionPay it is the product of its page. ``qr``, ``h5``,
    ``web`` and ``card`` may leave the channel to us.
    """

    mode: PayMode
    channel: Annotated[str, Meta(max_length=32)] | None = None
    auth_code: AuthCode | None = None
    payer_id: Annotated[str, Meta(pattern=r"^[!-~]{1,128}(?!\n)$")] | None = None
    return_url: Annotated[str, Meta(pattern=r"^https?://[!-~]{1,500}(?!\n)$")] | None = None
    app_id: Annotated[str, Meta(pattern=r"^[!-~]{1,64}(?!\n)$")] | None = None
    agreement_id: Annotated[str, Meta(max_length=64)] | None = None
    card: CardReading | None = None
    card_token: CardToken | None = None


_NEEDS: Final[Mapping[PayMode, frozenset[str]]] = {
    PayMode.QR: frozenset(),
    PayMode.PAYMENT_CODE: frozenset({"auth_code"}),
    PayMode.IN_APP: frozenset({"channel", "payer_id"}),
    PayMode.APP: frozenset({"channel"}),
    PayMode.H5: frozenset({"return_url"}),
    PayMode.WEB: frozenset({"return_url"}),
    PayMode.AGREEMENT: frozenset({"agreement_id"}),
    PayMode.CARD: frozenset(),  # one of the two it takes
}
_TAKES: Final[Mapping[PayMode, frozenset[str]]] = {
    PayMode.QR: frozenset({"channel"}),
    PayMode.PAYMENT_CODE: frozenset({"channel"}),
    PayMode.IN_APP: frozenset({"app_id", "return_url"}),
    PayMode.APP: frozenset({"app_id", "return_url"}),
    PayMode.H5: frozenset({"channel", "app_id", "payer_id"}),
    PayMode.WEB: frozenset({"channel", "app_id", "payer_id"}),
    PayMode.AGREEMENT: frozenset({"channel"}),
    PayMode.CARD: frozenset({"channel", "card", "card_token"}),
}
_FIELDS: Final = (
    "channel",
    "auth_code",
    "payer_id",
    "return_url",
    "app_id",
    "agreement_id",
    "card",
    "card_token",
)


def check_method(method: MethodAsked) -> None:
    """Raise unless the method has every field its mode needs and none of another's.

    Raises:
        MethodFieldMissing, MethodFieldForeign
    """
    needs, takes = _NEEDS[method.mode], _TAKES[method.mode]
    for field in _FIELDS:
        given = getattr(method, field) is not None
        if field in needs and not given:
            raise MethodFieldMissing(param=f"$.method.{field}", mode=method.mode)
        if given and field not in needs | takes:
            raise MethodFieldForeign(param=f"$.method.{field}", mode=method.mode)
    if method.mode is PayMode.CARD and method.card is None and method.card_token is None:
        raise MethodFieldMissing(param="$.method.card", mode=method.mode)
    if method.card is not None and method.card_token is not None:
        raise MethodFieldForeign(param="$.method.card_token", mode=method.mode)
    knows_one = method.payer_id is not None or method.app_id is not None
    if knows_one and method.channel is None:  # both are one channel's words
        raise MethodFieldMissing(param="$.method.channel", mode=method.mode)


def how_asked(method: MethodAsked) -> HowAsked | None:
    """Return what the channel is told of the customer in every call, if there is anything."""
    if method.payer_id is method.return_url is method.app_id is None:
        return None
    return HowAsked(method.payer_id, method.return_url, method.app_id)


def kept_of(how: HowAsked | None, card: CardRead | None) -> HowAsked | None:
    """Return what later calls are told, too; of a card that was read only which terminal did it."""
    if card is None or not card.terminal:
        return how
    return replace(how or HowAsked(), card_terminal=card.terminal)


def has_more_than_code(method: MethodAsked) -> bool:
    """Whether the method says anything beside whose payment code it is."""
    return (
        method.payer_id is not None
        or method.return_url is not None
        or method.app_id is not None
        or method.agreement_id is not None
        or method.card is not None
        or method.card_token is not None
    )


def card_of(method: MethodAsked, merchant_id: UUID, mode: Mode) -> CardRead | None:
    """Return the card a channel is given, or the token that the merchant may use in its place."""
    if method.card is not None:
        return method.card.read
    told = method.card_token
    if told is None:
        return None
    token = TokenRead(
        merchant_id, mode, told.number, told.key_number, told.counter, told.cryptogram
    )
    return CardRead(number="", expiry="", entry=ON_FILE, token=token)
