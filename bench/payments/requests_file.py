"""Requests made and signed beforehand, so that the load generator does nothing but send them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path
from random import Random

from msgspec import Struct

from tongbao.kernel.clock import real_now

PATH = "/v1/payments"


class Signer(Struct, frozen=True):
    """A merchant's key."""

    key_id: str
    secret: str


def write_requests(
    folder: Path, port: int, payers: Sequence[tuple[Signer, str]], *, threads: int, run: str
) -> None:
    """Write one request for each (who collects, which code), shared out over a file per thread."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = Random(run)
    files = [(folder / str(number + 1)).open("wb", 1 << 20) for number in range(threads)]
    timestamp = int(real_now().timestamp())
    for number, (signer, code) in enumerate(payers):
        body = (
            f'{{"merchant_order_no":"{run}-{number:08d}","amount":{chance.randint(1, 9999)},'
            f'"currency":"CNY","subject":"two cups of tea, one of them without sugar",'
            f'"method":{{"mode":"payment_code","auth_code":"{code}"}},'
            f'"metadata":{{"shop":"Nanjing Road {number % 97}","till":"{number % 7}"}}}}'
        ).encode()
        nonce = f"{run}{number:012d}n"
        text = f"POST\n{PATH}\n{timestamp}\n{nonce}\n{hashlib.sha256(body).hexdigest()}\n"
        mac = hmac.digest(signer.secret.encode(), text.encode(), "sha256")
        request = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Idempotency-Key: {run}-{number:08d}-key\r\n"
            f"Authorization: TONGBAO-HMAC-SHA256 key={signer.key_id},timestamp={timestamp},"
            f"nonce={nonce},signature={base64.b64encode(mac).decode()}\r\n\r\n"
        ).encode() + body
        files[number % threads].write(b"%08d" % len(request) + request)
    for file in files:
        file.close()
