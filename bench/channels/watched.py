"""The platform's server, watched: where its processor time goes, by stage and by layer.

    python -m bench.channels.watched FILE

It is ``tongbao serve`` in the environment it is given. At every tick of the process's own
processor time the stack is looked at: what the work was for (the outermost of ours that says) and
which code did it (the innermost that is known). SIGUSR1 writes the counts to FILE and begins anew.
"""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import asyncpg
import msgspec
from msgspec import Struct

from tongbao.__main__ import main

TICK_S: Final = 0.001  # the kernel rounds it up to its own tick

# Where a stack is in one of these it is for that; the first of the list wins.
STAGES: Final = (
    ("routing", "payments/routing/watch.py"),
    ("ledger", "ledger/poster/"),
    ("callback", "payments/callbacks/api.py"),
    ("callback", "payments/callbacks/door.py"),
    ("callback", "payments/callbacks/inbox.py:receive"),
    ("believe", "payments/callbacks/inbox.py"),
    ("webhook", "infra/webhooks/courier.py"),
    ("chase", "payments/collecting/chase.py:chase_attempt"),
    ("channel call", "payments/collecting/chase.py:offer"),
    ("create", "payments/hot/"),
    ("create", "infra/hot_routes.py"),
    ("create", "infra/serving/app.py"),
    ("shared commits", "infra/commits.py"),
    ("shared reads", "infra/lookups.py"),
    ("worker", "infra/worker.py"),
)
LAYERS: Final = (
    ("crypto", "cryptography/"),
    ("crypto", "/crypto.py"),
    ("crypto", "webhooks/signing.py"),
    ("database", "asyncpg/"),
    ("database", "infra/db.py"),
    ("http out", "httpcore2/"),
    ("http out", "h11/"),
    ("http out", "anyio/"),
    ("http in", "infra/http_edge.py"),
    ("http in", "infra/hot_routes.py"),
    ("http out", "infra/http"),
    ("http in", "uvicorn/"),
    ("http in", "litestar/"),
    ("http in", "infra/web/"),
    ("asyncio", "asyncio/"),
    ("metrics, logs", "prometheus_client/"),
    ("metrics, logs", "structlog/"),
    ("ours", "tongbao/"),
)
LOOP: Final = "event loop"
CRYPTO: Final = (
    ("sign", "tongbao.rails.channels.wechat_pay.crypto", "sign"),
    ("verify", "tongbao.rails.channels.wechat_pay.crypto", "verify"),
    ("open", "tongbao.rails.channels.wechat_pay.crypto", "open_envelope"),
    ("sign", "tongbao.rails.channels.alipay.crypto", "sign"),
    ("verify", "tongbao.rails.channels.alipay.crypto", "verify"),
    ("sign", "tongbao.rails.channels.unionpay.crypto", "sign"),
    ("verify", "tongbao.rails.channels.unionpay.crypto", "verifies"),
    ("md5", "tongbao.rails.channels.unionpay_qra.crypto", "_signature"),
    ("hmac", "tongbao.infra.crypto", "hmac_sha256"),
    ("ed25519", "tongbao.infra.crypto", "ed25519_sign"),
)
"""Where each primitive of the floor is called, so that how often says whether the floor is fair."""


class Seen(Struct):
    """What was seen since the last time: ticks by stage and layer, and calls of the database."""

    ticks: dict[str, dict[str, int]]
    calls: dict[str, int]
    crypto: dict[str, int]


class Watch:
    """Counts for one process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ticks: Counter[tuple[str, str]] = Counter()
        self._calls: Counter[str] = Counter()
        self._crypto: Counter[str] = Counter()
        self._places: dict[object, tuple[int, str]] = {}

    def begin(self) -> None:
        """Look on from now."""
        for name in ("execute", "fetch", "executemany", "copy_to_table"):
            self._count_calls(name)
        for primitive, module, function in CRYPTO:
            self._count_crypto(primitive, getattr(sys.modules[module], function))
        signal.signal(signal.SIGPROF, self._tick)
        signal.signal(signal.SIGUSR1, self._write)
        signal.setitimer(signal.ITIMER_PROF, TICK_S, TICK_S)

    def _count_calls(self, name: str) -> None:
        kind: Any = asyncpg.Connection
        real = getattr(kind, name)
        calls = self._calls

        async def counted(connection: Any, first: str, *args: Any, **how: Any) -> Any:
            calls[" ".join(first.split())[:60]] += 1
            return await real(connection, first, *args, **how)

        setattr(kind, name, counted)

    def _count_crypto(self, primitive: str, real: Callable[..., Any]) -> None:
        """Count its calls, in whatever module it is known by name."""

        def counted(*args: Any, **how: Any) -> Any:
            self._crypto[primitive] += 1
            return real(*args, **how)

        for module in list(sys.modules.values()):
            if getattr(module, real.__name__, None) is real:
                setattr(module, real.__name__, counted)

    def _tick(self, _number: int, frame: FrameType | None) -> None:
        layer, best = "", len(STAGES)
        while frame is not None:
            at, found = self._place(frame)
            layer = layer or found
            best = min(best, at)
            frame = frame.f_back
        stage = STAGES[best][0] if best < len(STAGES) else LOOP
        self._ticks[stage, layer or LOOP] += 1

    def _place(self, frame: FrameType) -> tuple[int, str]:
        code = frame.f_code
        known = self._places.get(code)
        if known is None:
            where = f"{code.co_filename}:{code.co_name}"
            stages = [at for at, (_, mark) in enumerate(STAGES) if mark in where]
            layer = next((name for name, mark in LAYERS if mark in where), "")
            if "uvloop" in where or code.co_name in {"run_until_complete", "run"}:
                layer = LOOP
            known = self._places[code] = (min(stages, default=len(STAGES)), layer)
        return known

    def _write(self, _number: int, _frame: FrameType | None) -> None:
        ticks: dict[str, dict[str, int]] = {}
        for (stage, layer), count in self._ticks.items():
            ticks.setdefault(stage, {})[layer] = count
        half = self._file.with_suffix(".half")
        half.write_bytes(msgspec.json.encode(Seen(ticks, dict(self._calls), dict(self._crypto))))
        half.replace(self._file)
        self._ticks.clear()
        self._calls.clear()
        self._crypto.clear()


if __name__ == "__main__":
    Watch(Path(sys.argv[1])).begin()
    sys.argv = ["tongbao", "serve"]
    main()
