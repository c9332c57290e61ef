# ruff: noqa: TID251 - it is not part of the platform and has the system's clock
"""The signature check that both compared services share; the same work as the platform's."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

WINDOW_S = 300


def fields_of(header: str) -> dict[str, str]:
    _, _, rest = header.partition(" ")
    return dict(part.strip().split("=", 1) for part in rest.split(","))


def is_signed(fields: dict[str, str], secret: str, target: str, body: bytes) -> bool:
    digest = hashlib.sha256(body).hexdigest()
    text = f"POST\n{target}\n{fields['timestamp']}\n{fields['nonce']}\n{digest}\n"
    expected = hmac.digest(secret.encode(), text.encode(), "sha256")
    fresh = abs(time.time() - int(fields["timestamp"])) <= WINDOW_S
    return fresh and hmac.compare_digest(expected, base64.b64decode(fields["signature"]))
