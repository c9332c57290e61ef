"""How fast this machine is: the least that a route in Python can do, measured in the same run.

A plain ASGI callable under uvicorn in one process checks an HMAC, decodes a small JSON body and
answers. It touches no database and keeps nothing, so its processor time per request says how one
machine's figures compare to another's.
"""

from __future__ import annotations

import hmac
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final

import msgspec
import uvicorn
from msgspec import Struct

CONNECTIONS: Final = 64
_KEY: Final = b"0123456789abcdef0123456789abcdef"
_LUA: Final = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "%s"
wrk.body = '%s'
"""


class _Method(Struct):
    mode: str
    auth_code: str


class _Asked(Struct):
    merchant_order_no: str
    amount: int
    currency: str
    subject: str
    method: _Method
    metadata: dict[str, str]


_BODY: Final = msgspec.json.encode(
    _Asked(
        merchant_order_no="order-00000001",
        amount=1850,
        currency="CNY",
        subject="two cups of tea, one of them without sugar",
        method=_Method(mode="payment_code", auth_code="880000000000000001"),
        metadata={"shop": "Nanjing Road 5", "till": "6"},
    )
)
_DECODER: Final = msgspec.json.Decoder(_Asked)


class Pace(Struct, frozen=True):
    """What one process came to: processor time of a request, and requests a second."""

    us: float
    per_second: float


async def app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Answer a signed request of the usual size."""
    if scope["type"] != "http":
        return
    body: bytes = (await receive())["body"]
    signed = dict(scope["headers"]).get(b"authorization", b"")
    is_right = hmac.compare_digest(_signature(body), signed)
    amount = _DECODER.decode(body).amount if is_right else 0
    headers = [(b"content-type", b"application/json")]
    await send(
        {"type": "http.response.start", "status": 200 if is_right else 401, "headers": headers}
    )
    await send({"type": "http.response.body", "body": b'{"amount":%d}' % amount})


def measure(wrk: str, folder: Path, port: int, *, seconds: int) -> Pace:
    """Return the pace of this machine, driven by wrk for so long; everything runs on loopback."""
    script = folder / "yardstick.lua"
    script.write_text(_LUA % (_signature(_BODY).decode(), _BODY.decode()))
    served = subprocess.Popen([sys.executable, "-m", __name__, str(port)])
    try:
        _wait(port)
        before = _processor_s(served.pid)
        command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script)]
        out = subprocess.run(
            [*command, f"http://127.0.0.1:{port}/"], check=True, capture_output=True, text=True
        ).stdout
        used = _processor_s(served.pid) - before
    finally:
        served.terminate()
        served.wait(30)
    if "Non-2xx" in out:
        raise RuntimeError(out)
    requests = int(re.findall(r"(\d+) requests in", out)[0])
    return Pace(used / requests * 1e6, float(re.findall(r"Requests/sec:\s+([\d.]+)", out)[0]))


def _signature(body: bytes) -> bytes:
    return hmac.digest(_KEY, body, "sha256").hex().encode()


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait(port: int) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1)
        except urllib.error.HTTPError:
            return  # 401: it is there
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the yardstick did not come up")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
