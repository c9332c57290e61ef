"""The card host's port: connections, their keys, and how an answer misbehaves on the wire."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Final, Protocol

from msgspec import Struct, field

from tongbao_sandbox.cards_crypto import Sealing
from tongbao_sandbox.cards_message import Fields, Garbled, compose, framed, parse, unheadered

_ABORTIVE_CLOSE: Final = struct.pack("ii", 1, 0)
MAC_REFUSED: Final = b"A0"


class Reaction(Struct, frozen=True):
    """What goes back, and how the wire treats it."""

    mti: str
    fields: Fields
    ending: str = "answer"  # answer, silence, reset, reset_mid_frame
    delay_s: float = 0.0  # real seconds
    is_doubled: bool = False
    has_wrong_mac: bool = False


class Session(Struct):
    """What holds for one connection."""

    writer: asyncio.StreamWriter
    sealing: Sealing
    mac_key: bytes | None = None
    answering: set[asyncio.Task[None]] = field(default_factory=set)


class Desk(Protocol):
    """Decides; the host itself."""

    shown: dict[str, str]

    def sealing(self) -> Sealing:
        """Return how keys are used on a new connection."""

    def react(self, session: Session, mti: str, fields: Fields) -> Reaction:
        """Return what to do about a message whose MAC is right."""


class Server:
    """Listens on loopback."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._server: asyncio.Server | None = None
        self._sessions: list[Session] = []

    async def start(self) -> str:
        """Listen on any free port and return the address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        self.drop_all()

    def drop_all(self) -> int:
        """Close every connection, as after a restart, and return how many there were."""
        sessions, self._sessions = self._sessions, []
        for session in sessions:
            session.writer.close()
        return len(sessions)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(writer, self._desk.sealing())
        self._sessions.append(session)
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                raw = unheadered(await reader.readexactly(size))
                self._hear(session, raw)
        except (OSError, EOFError, Garbled):
            writer.close()
        finally:
            for answering in session.answering:
                answering.cancel()
            with suppress(ValueError):
                self._sessions.remove(session)

    def _hear(self, session: Session, raw: bytes) -> None:
        mti, fields = parse(raw)
        if mti == "0800" or self._is_authentic(session, raw, fields):
            reaction = self._desk.react(session, mti, fields)
        else:
            refused: Fields = {at: fields[at] for at in (3, 7, 11, 37, 41, 42) if at in fields}
            refused[39] = MAC_REFUSED
            reaction = Reaction(f"{int(mti) + 10:04d}", refused)
        # Each answer goes its own way, so a slow one holds up no other.
        answering = asyncio.create_task(self._answer(session, reaction))
        session.answering.add(answering)
        answering.add_done_callback(session.answering.discard)

    def _is_authentic(self, session: Session, raw: bytes, fields: Fields) -> bool:
        mac = fields.get(128) or fields.get(64)
        return session.mac_key is not None and session.sealing.mac(session.mac_key, raw[:-8]) == mac

    async def _answer(self, session: Session, reaction: Reaction) -> None:
        if reaction.delay_s:
            await asyncio.sleep(reaction.delay_s)
        if reaction.ending == "silence":
            return
        wire = b"" if reaction.ending == "reset" else self._written(session, reaction)
        with suppress(OSError):
            if reaction.ending == "answer":
                session.writer.write(wire * (2 if reaction.is_doubled else 1))
                await session.writer.drain()
                return
            session.writer.write(wire[: len(wire) // 2])
            await session.writer.drain()
        if wire:
            await asyncio.sleep(0.05)  # let the half arrive before the reset overtakes it
        _reset(session.writer)

    def _written(self, session: Session, reaction: Reaction) -> bytes:
        fields = dict(reaction.fields)
        if session.mac_key is not None and reaction.mti != "0810":
            fields[64] = bytes(8)
            mac = session.sealing.mac(session.mac_key, compose(reaction.mti, fields)[:-8])
            fields[64] = mac if not reaction.has_wrong_mac else bytes((mac[0] ^ 1,)) + mac[1:]
        shown = self._desk.shown
        message = compose(reaction.mti, fields)
        return framed(message, to=shown["institution"], sender=shown["switch"])


def _reset(writer: asyncio.StreamWriter) -> None:
    """Cut the connection so that the far end sees a reset and not an end."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTIVE_CLOSE)
    writer.transport.abort()
