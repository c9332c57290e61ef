"""What a red packet is, how it is split, and every reason to refuse one. No I/O.

    open ──the last part is taken──► emptied
     └──its time is over──► returned    what nobody took goes back to the sender

A part is an amount drawn when the red packet was filled. Whoever comes n-th takes the n-th part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

from tongbao.kernel.errors import Conflict, NotFound, Rejected
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money

LIFETIME_DEFAULT: Final = timedelta(hours=24)
"""After a day what nobody took goes back, as people know it from WeChat."""
LIFETIME_MAX_S: Final = 7 * 86_400
_WORD_BYTES: Final = 16


class RedPacketNotFound(NotFound):
    """The merchant has no such red packet in this mode."""

    code = "red_packet.not_found"
    advice = "Check the id and the mode of the key."
    advice_zh = "请检查红包标识和密钥所属环境。"


class RedPacketTooSmall(Rejected):
    """There is less than one minor unit for every part."""

    code = "red_packet.too_small"
    advice = "Send more, or make fewer parts: each part has at least 1 minor unit."
    advice_zh = "每份至少 1 分，请增加金额或减少份数。"


class RedPacketNotEven(Rejected):
    """The amount cannot be split into equal parts."""

    code = "red_packet.not_even"
    advice = "Choose an amount that the number of parts divides, or a lucky red packet."
    advice_zh = "金额无法均分，请调整金额或改用拼手气红包。"


class RedPacketLimitExceeded(Rejected):
    """More than a red packet may hold, of money or of parts."""

    code = "red_packet.limit_exceeded"
    advice = "Stay within the limits named in facts."
    advice_zh = "超出红包限额，请参照 facts 中给出的上限。"


class RedPacketCurrencyUnknown(Rejected):
    """Nobody set limits for red packets in this currency, so there are none."""

    code = "red_packet.currency_unknown"
    advice = "Send red packets in a currency that has limits, such as CNY."
    advice_zh = "该币种未开通红包，请使用 CNY 等已开通的币种。"


class RedPacketBalanceTooLow(Rejected):
    """The sender's wallet does not hold the amount."""

    code = "red_packet.balance_too_low"
    advice = "Top the wallet up, then send the red packet under a new key."
    advice_zh = "钱包余额不足，请充值后使用新的幂等键重新发送。"


class RedPacketSendingRefused(Conflict):
    """The ledger did not take the money for the red packet."""

    code = "red_packet.sending_refused"
    advice = "Read the code in facts."
    advice_zh = "请查看 facts 中的原因代码。"


class GrabRefused(Conflict):
    """The taker's wallet cannot take money in."""

    code = "red_packet.grab_refused"
    advice = "Read the code in facts; the part stays for somebody else."
    advice_zh = "该钱包无法入账，请查看 facts 中的原因代码；该份红包仍可由他人领取。"


class Kind(StrEnum):
    """How a red packet is split."""

    EQUAL = "equal"  # 普通红包
    LUCKY = "lucky"  # 拼手气红包


class RedPacketState(StrEnum):
    """Whether there is something to take."""

    OPEN = "open"
    EMPTIED = "emptied"
    RETURNED = "returned"


class RedPacket(Struct, frozen=True):
    """One row of the red packet table; ``grabbed`` parts worth ``taken`` are gone."""

    book: int
    id: UUID
    merchant_id: UUID
    mode: Mode
    sender_id: UUID
    kind: Kind
    amount: int
    currency: str
    parts: int
    greeting: str
    state: RedPacketState
    grabbed: int
    taken: int
    returned: int
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None

    @property
    def left(self) -> Money:
        """What nobody took so far."""
        return Money(self.amount - self.taken, self.currency)

    def is_open_at(self, now: datetime) -> bool:
        """Whether something can be taken at this moment."""
        return self.state is RedPacketState.OPEN and now < self.expires_at


class RedPacketSplit(Struct, frozen=True):
    """One row of the split table."""

    book: int
    red_packet_id: UUID
    amounts: list[int]


class RedPacketGrab(Struct, frozen=True):
    """One row of the grab table: who took which part."""

    book: int
    red_packet_id: UUID
    wallet_id: UUID
    id: UUID
    part: int
    amount: int
    grabbed_at: datetime


class RedPacketLimit(Struct, frozen=True):
    """One row of the limit table, in minor units, with where the figures come from."""

    currency: str
    valid_from: date
    each_max: int
    total_max: int
    parts_max: int
    source: str


class RedPacketAsked(Struct, frozen=True):
    """What somebody wants to send."""

    kind: Kind
    money: Money
    parts: int
    greeting: str = ""
    lifetime: timedelta = LIFETIME_DEFAULT


class RedPacketView(Struct, frozen=True, omit_defaults=True):
    """A red packet as the API and the webhooks show it."""

    id: str
    object: Literal["red_packet"]
    mode: Mode
    wallet_id: str
    kind: Kind
    amount: int
    currency: str
    parts: int
    greeting: str
    status: RedPacketState
    parts_taken: int
    amount_taken: int
    amount_returned: int
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | UnsetType = UNSET


class GrabView(Struct, frozen=True):
    """A part that somebody took."""

    id: str
    object: Literal["red_packet_grab"]
    red_packet_id: str
    wallet_id: str
    part: int
    amount: int
    currency: str
    grabbed_at: datetime


def check_asked(asked: RedPacketAsked, limit: RedPacketLimit) -> None:
    """Raise unless this may be sent.

    Raises:
        RedPacketTooSmall, RedPacketNotEven, RedPacketLimitExceeded
    """
    amount, parts = asked.money.amount, asked.parts
    if amount < parts:
        raise RedPacketTooSmall(parts=parts)
    if parts > limit.parts_max or amount > limit.total_max:
        raise RedPacketLimitExceeded(parts_max=limit.parts_max, total_max=limit.total_max)
    if amount > parts * limit.each_max:
        raise RedPacketLimitExceeded(each_max=limit.each_max)
    if asked.kind is Kind.EQUAL and amount % parts:
        raise RedPacketNotEven(param="$.amount")


def split(kind: Kind, amount: int, parts: int, each_max: int, *, seed: bytes) -> list[int]:
    """Return the parts in the order they are taken; what `check_asked` lets through fits."""
    if kind is Kind.EQUAL:
        return [amount // parts] * parts
    return split_by_luck(amount, parts, each_max, seed)


def split_by_luck(amount: int, parts: int, each_max: int, seed: bytes) -> list[int]:
    """Return so many parts of 1 to ``each_max`` that make the amount, by a seed of chance.

    Each part but the last is drawn evenly between 1 and twice the mean of what is left, within
    what the others need and can hold; the last gets the rest. The draws vary more towards the end,
    so they are shuffled: it does not matter when one comes. The same seed makes the same parts.
    """
    if not parts <= amount <= parts * each_max:
        raise ValueError("no such split")
    chance, left, drawn = _chance(seed, 2 * parts), amount, []
    for others in range(parts - 1, 0, -1):
        least = max(1, left - others * each_max)
        most = min(each_max, left - others, max(least, 2 * left // (others + 1) - 1))
        part = least + next(chance) % (most - least + 1)
        drawn.append(part)
        left -= part
    drawn.append(left)
    for place in range(parts - 1, 0, -1):
        other = next(chance) % (place + 1)
        drawn[place], drawn[other] = drawn[other], drawn[place]
    return drawn


def _chance(seed: bytes, numbers: int) -> Iterator[int]:
    """Yield 128-bit numbers that nobody foresees without the seed: SHAKE-256 of it (FIPS 202).

    Taken modulo a span of money they are even to one part in 2**60.
    """
    stream = hashlib.shake_256(seed).digest(numbers * _WORD_BYTES)
    for begin in range(0, len(stream), _WORD_BYTES):
        yield int.from_bytes(stream[begin : begin + _WORD_BYTES], "big")


def view_red_packet(packet: RedPacket) -> RedPacketView:
    """Return the red packet as the API shows it."""
    return RedPacketView(
        id=show("rpk", packet.id),
        object="red_packet",
        mode=packet.mode,
        wallet_id=show("wal", packet.sender_id),
        kind=packet.kind,
        amount=packet.amount,
        currency=packet.currency,
        parts=packet.parts,
        greeting=packet.greeting,
        status=packet.state,
        parts_taken=packet.grabbed,
        amount_taken=packet.taken,
        amount_returned=packet.returned,
        created_at=packet.created_at,
        expires_at=packet.expires_at,
        ended_at=packet.ended_at or UNSET,
    )


def view_grab(grab: RedPacketGrab, currency: str) -> GrabView:
    """Return a part that was taken as the API shows it."""
    return GrabView(
        id=show("grb", grab.id),
        object="red_packet_grab",
        red_packet_id=show("rpk", grab.red_packet_id),
        wallet_id=show("wal", grab.wallet_id),
        part=grab.part,
        amount=grab.amount,
        currency=currency,
        grabbed_at=grab.grabbed_at,
    )
