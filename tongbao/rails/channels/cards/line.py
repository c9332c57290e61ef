"""One TCP connection to a card host: sign in, then many questions at a time, answers in any order.

Each message follows its length (two bytes) and the switch's header. The working keys of a sign-in
hold for its connection: every process signs in for itself and none takes another's keys away.

What has not begun to leave is `NotSent`. From the first byte on only an answer with a good MAC is
an answer; everything else is `Unknown`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import structlog
from msgspec import Struct

from tongbao.kernel.codecs.iso8583 import Message, Value, decode, encode
from tongbao.kernel.codecs.iso8583_dialects import CUPS
from tongbao.kernel.codecs.iso8583_parts import (
    FRAME_MAX,
    add_cups_header,
    frame,
    take_cups_header,
)
from tongbao.kernel.errors import Refusal
from tongbao.rails.channels.cards.crypto import (
    MAC_BYTES,
    WorkingKeys,
    WorkingKeysWrong,
    is_mac_of,
    mac_of,
    read_working_keys,
)
from tongbao.rails.channels.cards.messages import secrets_of, sign_in
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import NotSent, Unknown

APPROVED: Final = "00"
MAC_FIELD: Final = 64
MAC_FIELD_FAR: Final = 128
KEEP_ALIVE_S: Final = 30
"""Seconds of silence after which the system asks whether the far end is still there."""
MAC_REFUSED: Final = "A0"
"""Field 39: the far end does not know our MAC key, so the next call signs in anew."""

_log = structlog.get_logger()

Key = tuple[str, str, str, str, str]


class LineLimits(Struct, frozen=True):
    """Times are in seconds; the counts are per account and process."""

    connect_s: float = 3.0
    sign_in_s: float = 5.0
    answer_s: float = 10.0
    outstanding_max: int = 32  # unanswered at a time on one connection
    lines_max: int = 4


class CannotSend(Exception):
    """Nothing left: no connection, no sign-in, or no room; ``reason`` says which."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Line:
    """One connection that has signed in."""

    def __init__(
        self,
        account: ChannelAccount,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        limits: LineLimits,
    ) -> None:
        self._account = account
        self._secrets = secrets_of(account)
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._keys: WorkingKeys | None = None
        self._waiting: dict[Key, asyncio.Future[Message | Unknown]] = {}
        self._reading: asyncio.Task[None] | None = None
        self.is_open = True
        self.reserved = 0  # calls that hold a place here, sent or about to be

    async def ask(self, message: Message) -> Message | NotSent | Unknown:
        """Send the message once and return its answer, or what its absence means."""
        key = _key_of(message, _answer_type(message.mti))
        if not self.is_open:
            return NotSent("the connection is closed")
        if key in self._waiting:
            # Nothing leaves now, but its twin has left, and nobody knows what becomes of that one.
            return Unknown("the same message is under way")
        try:
            raw = self._framed(message)
        except Refusal as fault:
            return NotSent(f"not a message: {fault.code} {fault.facts.get('field', '')}".rstrip())
        waiting: asyncio.Future[Message | Unknown]
        self._waiting[key] = waiting = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._limits.answer_s):
                self._writer.write(raw)
                await self._writer.drain()
                return await waiting
        except TimeoutError:
            return Unknown("no answer in time")
        except OSError as failure:
            return Unknown(f"no answer: {type(failure).__name__}")
        finally:
            del self._waiting[key]

    async def sign_in(self, trace_number: int) -> None:
        """Ask for working keys, check them, and begin to listen for answers.

        Raises:
            CannotSend: no transaction may go over this connection.
        """
        question = sign_in(self._account, trace_number)
        try:
            async with asyncio.timeout(self._limits.sign_in_s):
                self._writer.write(self._framed(question))
                await self._writer.drain()
                answer, _ = await self._next()
        except (OSError, EOFError, Refusal) as failure:
            raise CannotSend(f"no sign-in: {type(failure).__name__}") from None
        same = all(answer.fields.get(at) == question.fields[at] for at in (11, 41, 42))
        if answer.mti != _answer_type(question.mti) or not same:
            raise CannotSend("the answer is not to our sign-in")
        if answer.text(39) != APPROVED:
            raise CannotSend(f"sign-in refused: {answer.text(39)}")
        try:
            self._keys = read_working_keys(self._secrets, answer.text(62).encode("latin-1"))
        except WorkingKeysWrong as fault:
            raise CannotSend(f"working keys: {fault}") from None
        self._reading = asyncio.create_task(self._read_on())

    async def close(self) -> None:
        """Close the connection; whoever waits for an answer is told that none will come."""
        self._end("the connection was closed")
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        with suppress(OSError):
            await self._writer.wait_closed()

    def stop(self) -> None:
        """Close without waiting for it."""
        self._end("the connection was closed")

    async def _read_on(self) -> None:
        reason = "the far end closed the connection"
        try:
            while True:
                answer, raw = await self._next()
                self._deliver(answer, raw)
        except (OSError, EOFError) as failure:
            reason = f"connection lost: {type(failure).__name__}"
        except Refusal as fault:
            # After bytes that are no message nobody knows where the next one begins.
            reason = f"unreadable: {fault.code}"
        finally:
            self._end(reason)

    def _deliver(self, answer: Message, raw: bytes) -> None:
        waiting = self._waiting.get(_key_of(answer, answer.mti))
        if waiting is None or waiting.done():
            # Late, or the second of two: whoever asked has been told Unknown, and will reverse.
            _log.info("card_answer_unexpected", mti=answer.mti, trace=answer.text(11))
            return
        if not self._is_authentic(answer, raw):
            self.is_open = False  # perhaps it has other keys by now: the next call signs in anew
            waiting.set_result(Unknown("the answer's MAC is wrong"))
            return
        if answer.text(39) == MAC_REFUSED:
            self.is_open = False
        waiting.set_result(answer)

    def _is_authentic(self, answer: Message, raw: bytes) -> bool:
        field = MAC_FIELD_FAR if any(at > MAC_FIELD for at in answer.fields) else MAC_FIELD
        mac = answer.fields.get(field)
        if self._keys is None or not isinstance(mac, bytes):
            return False
        return is_mac_of(self._secrets, self._keys.mac_key, raw[:-MAC_BYTES], mac)

    def _framed(self, message: Message) -> bytes:
        raw = encode(self._with_mac(message), CUPS)
        payload = add_cups_header(
            raw, destination=self._secrets.switch, source=self._secrets.institution
        )
        return frame(payload)

    def _with_mac(self, message: Message) -> Message:
        """Return the message with its MAC, which is over all the bytes before it, bitmap too."""
        if self._keys is None:
            return message
        field = MAC_FIELD_FAR if any(at > MAC_FIELD for at in message.fields) else MAC_FIELD
        fields: dict[int, Value] = {**message.fields, field: bytes(MAC_BYTES)}
        before = encode(Message(message.mti, fields), CUPS)[:-MAC_BYTES]
        fields[field] = mac_of(self._secrets, self._keys.mac_key, before)
        return Message(message.mti, fields)

    async def _next(self) -> tuple[Message, bytes]:
        size = int.from_bytes(await self._reader.readexactly(2), "big")
        if size > FRAME_MAX:
            raise EOFError("a frame beyond any message")
        _, raw = take_cups_header(await self._reader.readexactly(size))
        return decode(raw, CUPS), raw

    def _end(self, reason: str) -> None:
        self.is_open = False
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(Unknown(reason))
        self._writer.close()


async def open_line(account: ChannelAccount, limits: LineLimits, trace_number: int) -> Line:
    """Connect to the account's host and sign in.

    Raises:
        CannotSend
    """
    parts = urlsplit(account.gateway)
    if parts.scheme not in {"tcp", "tcps"} or not parts.hostname or not parts.port:
        raise CannotSend("the gateway is no tcp://host:port")
    tls = ssl.create_default_context() if parts.scheme == "tcps" else None
    try:
        async with asyncio.timeout(limits.connect_s):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=tls)
    except OSError as failure:
        raise CannotSend(f"not connected: {type(failure).__name__}") from None
    _keep_alive(writer)
    line = Line(account, reader, writer, limits)
    try:
        await line.sign_in(trace_number)
    except BaseException:
        line.stop()
        raise
    return line


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Have the system notice a dead connection before a message is lost in it."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_S)


def _key_of(message: Message, answer_type: str) -> Key:
    """Return what an answer is matched by: its type, trace, terminal, merchant and reference."""
    trace, terminal, merchant, reference = (message.text(at) for at in (11, 41, 42, 37))
    return answer_type, trace, terminal, merchant, reference


def _answer_type(mti: str) -> str:
    """Return the type of the answer: 0200 is answered by 0210."""
    return f"{int(mti) + 10:04d}"
