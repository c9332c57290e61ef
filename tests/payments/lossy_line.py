"""A line to PostgreSQL that loses answers: the server has done it, and nobody is told."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_IDLE = b"Z\x00\x00\x00\x05I"
"""ReadyForQuery outside a transaction: what was asked before it is committed."""
_COMMAND_COMPLETE = ord("C")


class LossyLine:
    """Stands before a server; while ``chance`` is not 0 it swallows so many ends of commits.

    With the answer goes the connection, as where a network or a server falls away.
    """

    def __init__(self, dsn: str, seed: int) -> None:
        self.dsn = dsn
        self._parts = urlsplit(dsn)
        asked = parse_qs(self._parts.query)
        self._path = Path(asked["host"][0]) / f".s.PGSQL.{asked['port'][0]}"
        self._chance = random.Random(seed)
        self.chance = 0.0
        self.lost = Counter[str]()

    async def open(self) -> str:
        """Begin to listen, and return the address of the same database behind this line."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        who = self._parts.netloc.rpartition("@")[0]
        return f"postgresql://{who}@{host}:{port}{self._parts.path}"

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs = writer
        with suppress(OSError):
            there, theirs = await asyncio.open_unix_connection(str(self._path))
            ways = [self._pass_on(reader, theirs), self._answer(there, writer)]
            tasks = [asyncio.create_task(each) for each in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
        for each in (writer, theirs):
            each.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while asked := await reader.read(65_536):
                to.write(asked)
                await to.drain()

    async def _answer(self, reader: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        """Pass the server's answers on, up to one that is lost."""
        with suppress(OSError):
            while said := await reader.read(65_536):
                if said.endswith(_IDLE) and self._chance.random() < self.chance:
                    self.lost[_tag(said)] += 1
                    return
                to.write(said)
                await to.drain()


def _tag(answer: bytes) -> str:
    """Return what was done last, as the server names it."""
    tag, at = "", 0
    while at + 5 <= len(answer):
        length = int.from_bytes(answer[at + 1 : at + 5], "big")
        if answer[at] == _COMMAND_COMPLETE:
            tag = answer[at + 5 : at + length].decode("ascii", "replace")
        at += 1 + length
    return tag
