"""A card host that answers as a test scripts it, over a real socket, in the order it is told.

It reads and writes with the sandbox's code, which shares nothing with the channel's.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import pytest

from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.rails.channels.cards.client import Cards
from tongbao.rails.channels.cards.line import LineLimits
from tongbao.rails.channels.cards.secrets import CardSecrets
from tongbao.rails.channels.contract.orders import (
    CardRead,
    ChannelAccount,
    PayMode,
    PayOrder,
    RefundOrder,
)
from tongbao_sandbox.cards_crypto import Sealing
from tongbao_sandbox.cards_message import Fields, compose, framed, parse, unheadered

MASTER_KEY = "1234567890ABCDEFABCDEF0987654321"
MAC_KEY = bytes.fromhex("55036372B17543ECB173730768B8D6C4")
PAN = "6251880000011688"
"""The simulator's BIN; nobody's card."""
TRACK2 = "6251880000011688=49121201234500000000"
PIN_BLOCK = bytes.fromhex("A1B2C3D4E5F60718")
CHIP = bytes.fromhex("9F2608C20428A3FF53F0AD5A086251880000011688")

React = Callable[[str, Fields], Any]


def account(gateway: str, **changes: Any) -> ChannelAccount:
    keys: dict[str, Any] = {
        "master_key": MASTER_KEY,
        "institution": "48021000",
        "switch": "00010000",
    }
    return ChannelAccount(
        id=UUID(int=7),
        channel="cards",
        mode=Mode.SANDBOX,
        gateway=gateway,
        merchant_number="898110000000001",
        app_id="10000001",
        notify_url="",
        fee_ppm=6000,
        secrets=CardSecrets(**{**keys, **changes}),
    )


def card(number: str = PAN, **changes: Any) -> CardRead:
    fields: dict[str, Any] = {
        "number": number,
        "expiry": "4912",
        "entry": "051",
        "track2": TRACK2.replace(PAN, number),
        "sequence": "1",
        "chip": CHIP,
    }
    return CardRead(**{**fields, **changes})


def order(amount: int = 1999, **changes: Any) -> PayOrder:
    from datetime import UTC, datetime

    fields: dict[str, Any] = {
        "number": base32(new_id()),
        "mode": PayMode.CARD,
        "money": Money(amount, "CNY"),
        "subject": "咖啡",
        "expires_at": datetime(2090, 1, 1, tzinfo=UTC),
        "card": card(),
    }
    return PayOrder(**{**fields, **changes})


def refund_order(paid: PayOrder, amount: int = 500, **changes: Any) -> RefundOrder:
    fields: dict[str, Any] = {
        "number": base32(new_id()),
        "order_number": paid.number,
        "money": Money(amount, "CNY"),
        "order_money": paid.money,
    }
    return RefundOrder(**{**fields, **changes})


class Connection:
    """One connection as the host sees it."""

    def __init__(self, host: CardHost, writer: asyncio.StreamWriter) -> None:
        self.host = host
        self.writer = writer

    def send(self, mti: str, fields: Fields, *, key: bytes = MAC_KEY) -> None:
        self.writer.write(self.wire(mti, fields, key=key))

    def wire(self, mti: str, fields: Fields, *, key: bytes = MAC_KEY) -> bytes:
        at = 128 if max(fields) > 64 else 64
        fields = {**fields, at: bytes(8)}
        fields[at] = self.host.sealing.mac(key, compose(mti, fields)[:-8])
        return framed(compose(mti, fields), to="48021000", sender="00010000")

    def raw(self, wire: bytes) -> None:
        self.writer.write(wire)

    def cut(self) -> None:
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class CardHost:
    """Signs in whoever asks; every other message goes to ``react``, or waits in ``heard``."""

    def __init__(self, cipher: str = "3des", mac: str = "ecb") -> None:
        self.url = ""
        self.sealing = Sealing(cipher, mac)
        self.heard: asyncio.Queue[tuple[Connection, str, Fields]] = asyncio.Queue()
        self.react: Callable[[Connection, str, Fields], None] | None = None
        self.connections: list[Connection] = []
        self.sign_in_answer: Callable[[Fields], Fields] = lambda answer: answer
        self.sees_good_macs = True

    async def next(self) -> tuple[Connection, str, Fields]:
        async with asyncio.timeout(5):
            return await self.heard.get()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, writer)
        self.connections.append(connection)
        with suppress(OSError, EOFError):
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                raw = unheadered(await reader.readexactly(size))
                mti, fields = parse(raw)
                if mti == "0800":
                    self.sign_in(connection, fields)
                    continue
                mac = fields.get(128) or fields[64]
                self.sees_good_macs &= mac == self.sealing.mac(MAC_KEY, raw[:-8])
                if self.react is None:
                    self.heard.put_nowait((connection, mti, fields))
                else:
                    self.react(connection, mti, fields)
        writer.close()

    def sign_in(self, connection: Connection, fields: Fields) -> None:
        master = bytes.fromhex(MASTER_KEY)
        block = self.sealing.wrapped(master, MAC_KEY) * 3
        echoed = {at: fields[at] for at in (11, 41, 42, 60)}
        answer = self.sign_in_answer({**echoed, 39: b"00", 62: block})
        message = compose("0810", answer)
        connection.raw(framed(message, to="48021000", sender="00010000"))


def answer_to(fields: Fields, code: str = "00", **changes: bytes) -> Fields:
    """The answer an honest host gives; ``f4=b"…"`` changes field 4, ``f4=b""`` leaves it out."""
    kept = (2, 3, 4, 7, 11, 12, 13, 18, 25, 32, 33, 37, 41, 42, 49)
    answer = {at: fields[at] for at in kept if at in fields}
    answer[39] = code.encode()
    if code == "00":
        answer[38] = b"123456"
    for name, value in changes.items():
        answer[int(name[1:])] = value
        if not value:
            del answer[int(name[1:])]
    return answer


@asynccontextmanager
async def card_host(
    cipher: str = "3des", mac: str = "ecb", tls: ssl.SSLContext | None = None
) -> AsyncIterator[CardHost]:
    host = CardHost(cipher, mac)
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0, ssl=tls)
    host.url = f"{'tcps' if tls else 'tcp'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield host
    finally:
        server.close()
        for connection in host.connections:
            connection.writer.close()


LIMITS = LineLimits()
QUICK = LineLimits(answer_s=0.3)


@pytest.fixture
async def host() -> AsyncIterator[CardHost]:
    async with card_host() as scripted:
        yield scripted


@pytest.fixture
async def cards() -> AsyncIterator[Cards]:
    channel = Cards(LIMITS)
    yield channel
    await channel.shut()


def replies(code: str = "00", **changes: bytes) -> Any:
    def react(connection: Any, mti: str, fields: Fields) -> None:
        connection.send(f"{int(mti) + 10:04d}", answer_to(fields, code, **changes))

    return react
