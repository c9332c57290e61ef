"""Sign a request with the API key's secret."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from base64 import b64encode

SCHEME = "TONGBAO-HMAC-SHA256"


def authorization(
    key_id: str, secret: str, *, method: str, target: str, body: bytes, at: int | None = None
) -> str:
    """Return the Authorization header of one request.

    ``target`` is the path with its query, byte for byte as it is sent. Each header is good for one
    try within five minutes, so a retry is signed anew.
    """
    timestamp = str(int(time.time()) if at is None else at)
    nonce = secrets.token_urlsafe(18)
    digest = hashlib.sha256(body).hexdigest()
    text = f"{method}\n{target}\n{timestamp}\n{nonce}\n{digest}\n"
    mac = hmac.digest(secret.encode(), text.encode(), "sha256")
    signature = b64encode(mac).decode()
    return f"{SCHEME} key={key_id},timestamp={timestamp},nonce={nonce},signature={signature}"
