"""The way in of terminals in a process of its own, which can be killed.

    python -m tests.payments.terminal_process DSN

It prints its port once it serves, and dies at the end of its input, as when whoever started it
dies.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading

from tests.stage import listen, served
from tongbao.infra import db as database
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.serving.app import App
from tongbao.infra.serving.openapi import ApiFacts
from tongbao.kernel.clock import Clock
from tongbao.parties.identity.keys import KeysOnRecord
from tongbao.payments.terminal_notices.app import TERMINALS_PREFIX, TerminalApp
from tongbao.payments.terminal_notices.streams import Streams

KEYRING = Keyring([b"k" * 32])


def way_in(db: Db, streams: Streams) -> App:
    """An application with nothing but what terminals call."""
    facts = ApiFacts(
        title="Tongbao",
        version="1",
        description="",
        public_url="https://pay.example",
        docs_url="https://pay.example/docs/refusals",
        scopes={},
    )
    mounts = {TERMINALS_PREFIX: TerminalApp(db, KEYRING, streams)}
    return App([], db=db, keys=KeysOnRecord(db, KEYRING), facts=facts, mounts=mounts)


async def live(dsn: str) -> None:
    """Serve until killed."""
    db = await database.connect(dsn, Clock())
    listening = listen()
    async with served(way_in(db, Streams(db, poll_s=0.02)), listening):
        sys.stdout.write(f"{listening.getsockname()[1]}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def _die_with_the_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_die_with_the_input, daemon=True).start()
    asyncio.run(live(sys.argv[1]))
