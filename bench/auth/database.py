"""A database of the benchmark's own, as the platform starts one: durable, migrated, and empty."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tongbao.infra import embedded
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, connect
from tongbao.infra.migrate import migrate
from tongbao.kernel.clock import Clock
from tongbao.kernel.licence import Licence

LICENCE = Licence.PAYMENT_INSTITUTION


@asynccontextmanager
async def own_database() -> AsyncIterator[tuple[Db, Keyring]]:
    """Start a server, migrate its database, and take both away at the end."""
    folder = Path(tempfile.mkdtemp(prefix="tongbao-bench-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        server = await asyncio.to_thread(embedded.start, folder / "data")
        try:
            db = await connect(server.dsn, Clock())
            try:
                await migrate(db, LICENCE, "bench")
                yield db, Keyring.from_file(folder / "kek")
            finally:
                await db.close()
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
