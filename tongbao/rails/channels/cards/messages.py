"""What goes to a card host: each kind of message as data, and how it may be shown.

A message is found again by its trace: time (field 7), trace number (11) and reference (37), all of
them made from our own number, so that a repeat, a reversal and a refund name the same transaction
from any process, and nothing of a card has to be kept for it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from msgspec import Struct

from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.codecs.iso8583 import Message, Value
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import from_base32
from tongbao.kernel.money import Money
from tongbao.rails.channels.cards.secrets import CardSecrets
from tongbao.rails.channels.cards.totals import fits, write_totals
from tongbao.rails.channels.contract.bills import BatchTotals
from tongbao.rails.channels.contract.orders import CardRead, ChannelAccount

CURRENCY: Final = "CNY"
CURRENCY_NUMBER: Final = "156"
AMOUNT_MAX: Final = 999_999_999_999
PIN_BLOCK_BYTES: Final = 8
NO_ANSWER: Final = "98"
"""Field 39 of a reversal: why. 98 says that no answer came."""


class Kind(Struct, frozen=True):
    """One kind of transaction: message type, processing code (3), condition (25).

    The three are those of UnionPay's terminals (消费, 撤销, 预授权, 完成通知, 退货, 余额查询).
    """

    mti: str
    processing: str
    condition: str


PURCHASE: Final = Kind("0200", "000000", "00")
PURCHASE_CANCEL: Final = Kind("0200", "200000", "00")
BALANCE: Final = Kind("0200", "310000", "00")
AUTHORISE: Final = Kind("0100", "030000", "06")
AUTHORISE_CANCEL: Final = Kind("0100", "200000", "06")
CAPTURE: Final = Kind("0220", "000000", "06")  # an advice: repeated until it is answered
REFUND: Final = Kind("0220", "200000", "00")  # an advice too
SIGN_IN: Final = "0800"
TOTALS: Final = "0500"
REVERSAL: Final = "0400"

SHOWN: Final = frozenset(
    {3, 4, 7, 11, 12, 13, 15, 18, 22, 25, 32, 33, 37, 38, 39, 41, 42, 49, 70, 100}
)
"""Fields that go into the evidence as they are; of every other only that it was there."""
SHOWN_OF_OURS: Final = SHOWN | {60, 90}
"""Long enough for a card number, so shown only where we wrote them."""


class Trace(Struct, frozen=True):
    """What a transaction is found again by."""

    time: str  # field 7, MMDDhhmmss in China
    number: str  # field 11
    reference: str  # field 37
    at: datetime  # the time with its year


class Unsendable(Exception):
    """There is no message for this; ``reason`` says why, and holds nothing secret."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def trace_of(number: str, role: str = "") -> Trace:
    """Return the trace of what has this number; ``role`` tells a second message about it apart.

    Two numbers of one second have the same time and trace number once in a million; the reference
    holds sixty bits of the number, and tells them apart.

    Raises:
        Unsendable: it is no number of ours.
    """
    try:
        made_ms = from_base32(number).int >> 80
    except Refusal:
        raise Unsendable("the number is none of ours") from None
    at = datetime.fromtimestamp(0, UTC) + timedelta(seconds=made_ms // 1000)
    digest = int.from_bytes(sha256(f"{number}/{role}".encode()).digest()[:8], "big")
    return Trace(
        time=at.astimezone(BUSINESS_ZONE).strftime("%m%d%H%M%S"),
        number=f"{digest % 999_999 + 1:06d}",
        reference=number[-12:].upper(),
        at=at,
    )


def request(
    account: ChannelAccount,
    kind: Kind,
    trace: Trace,
    money: Money | None,
    *,
    card: CardRead | None = None,
    terminal: str | None = None,
    original: tuple[str, Trace] | None = None,
    authorisation_code: str | None = None,
) -> Message:
    """Return a transaction's message; ``original`` is the type and trace of what it is about.

    ``terminal``: the one that read the card, where the card itself is not known any more. What is
    about a transaction comes from its terminal, or its host does not know which is meant.

    Raises:
        Unsendable
    """
    fields: dict[int, Value] = {
        **_envelope(account, trace, card, terminal),
        3: kind.processing,
        18: secrets_of(account).category,
        25: kind.condition,
    }
    if money is not None:
        fields |= _amount(money)
    if card is not None:
        fields |= _card(card, secrets_of(account))
    if authorisation_code:
        fields[38] = authorisation_code.ljust(6)
    if original is not None:
        fields[90] = _original(account, *original)
    return Message(kind.mti, fields)


def reversal(
    account: ChannelAccount,
    kind: Kind,
    number: str,
    money: Money,
    card: CardRead | None = None,
    *,
    terminal: str | None = None,
) -> Message:
    """Return the message that undoes the transaction of this number, whatever became of it.

    It keeps the reference of what it undoes and has a trace number of its own, the same at each
    repeat.

    Raises:
        Unsendable
    """
    own = trace_of(number, "reversal")
    original = (kind.mti, trace_of(number))
    message = request(account, kind, own, money, card=card, terminal=terminal, original=original)
    # A track or a PIN has no business in a second message.
    kept = {at: value for at, value in message.fields.items() if at not in {35, 52, 53, 26}}
    return Message(REVERSAL, {**kept, 39: NO_ANSWER})


def sign_in(account: ChannelAccount, trace_number: int) -> Message:
    """Return the request for fresh working keys, for PINs, MACs and tracks (60.3: 004)."""
    return _to_the_host(account, SIGN_IN, f"{trace_number:06d}", "004")


def totals_request(account: ChannelAccount, number: str, totals: BatchTotals) -> Message:
    """Return the request to compare a batch's totals (60.3: 201).

    Raises:
        Unsendable
    """
    if not fits(totals):
        raise Unsendable("the totals do not fit in field 48")
    trace = trace_of(number)
    message = _to_the_host(account, TOTALS, trace.number, "201")
    more: dict[int, Value] = {37: trace.reference, 48: write_totals(totals), 49: CURRENCY_NUMBER}
    return Message(TOTALS, {**message.fields, **more})


def secrets_of(account: ChannelAccount) -> CardSecrets:
    """Return the account's secrets as what they must be."""
    if not isinstance(account.secrets, CardSecrets):
        raise TypeError("an account at a card host needs CardSecrets")
    return account.secrets


def shown(message: Message, fields: frozenset[int] = SHOWN) -> str:
    """Return the message for people: the card number as six and four digits, most of it hidden."""
    lines = [message.mti]
    for number in sorted(message.fields):
        value = message.fields[number]
        if number == 2 and isinstance(value, str):
            lines.append(f"2 {masked(value)}")
        elif number in fields and isinstance(value, str):
            lines.append(f"{number} {value}")
        else:
            lines.append(f"{number} *** ({len(value)})")
    return "\n".join(lines)


def masked(card_number: str) -> str:
    """Return the first six and last four digits, as much as PCI DSS 3.4.1 lets people see."""
    if len(card_number) < 13:
        return "*" * len(card_number)
    return card_number[:6] + "*" * (len(card_number) - 10) + card_number[-4:]


def hidden_of(card: CardRead | None) -> tuple[str, ...]:
    """Return what must not stand in the evidence even where the far end repeats it."""
    if card is None:
        return ()
    track = (card.track2, card.track2.replace("=", "D")) if card.track2 else ()
    return tuple(sorted({card.number, *track} - {""}, key=len, reverse=True))


def _envelope(
    account: ChannelAccount, trace: Trace, card: CardRead | None, terminal: str | None
) -> dict[int, Value]:
    secrets = secrets_of(account)
    terminal = (card.terminal if card else "") or terminal or account.app_id
    merchant = account.merchant_number
    if card is not None and card.merchant not in {"", merchant}:
        # The host pays out to the merchant of field 42: nobody but us says who that is.
        raise Unsendable("the card was read for another merchant")
    return {
        7: trace.time,
        11: trace.number,
        12: trace.time[4:],
        13: trace.time[:4],
        32: secrets.institution,
        33: secrets.institution,
        37: trace.reference,
        41: terminal.ljust(8),
        42: merchant.ljust(15),
    }


def _to_the_host(account: ChannelAccount, mti: str, trace: str, network_code: str) -> Message:
    fields: dict[int, Value] = {
        11: trace,
        41: account.app_id.ljust(8),
        42: account.merchant_number.ljust(15),
        60: f"00{secrets_of(account).batch}{network_code}",
        63: "01 ",  # the operator, as a terminal's own sign-in writes it
    }
    return Message(mti, fields)


def _amount(money: Money) -> dict[int, Value]:
    if money.currency != CURRENCY:
        raise Unsendable(f"cards do not take {money.currency} here")
    if not 0 < money.amount <= AMOUNT_MAX:
        raise Unsendable("the amount does not fit in field 4")
    return {4: f"{money.amount:012d}", 49: CURRENCY_NUMBER}


def _card(card: CardRead, secrets: CardSecrets) -> dict[int, Value]:
    fields: dict[int, Value] = {2: card.number, 22: card.entry}
    if card.expiry:
        fields[14] = card.expiry
    if card.sequence is not None:
        fields[23] = card.sequence.rjust(3, "0")
    if card.track2 is not None:
        fields[35] = card.track2
    if card.chip is not None:
        fields[55] = card.chip
    if card.pin_block is not None:
        if len(card.pin_block) != PIN_BLOCK_BYTES:
            raise Unsendable("field 52 holds a PIN block of eight bytes")
        fields |= {26: "12", 52: card.pin_block}
        if secrets.cipher == "3des":
            fields[53] = "2600000000000000"  # a PIN bound to its card, under a double-length key
    return fields


def _original(account: ChannelAccount, mti: str, trace: Trace) -> str:
    institution = secrets_of(account).institution.rjust(11, "0")
    return mti + trace.number + trace.time + institution + institution
