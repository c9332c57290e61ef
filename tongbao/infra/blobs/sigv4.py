"""AWS Signature Version 4, as S3-compatible stores want their requests signed. No I/O.

Rules: "Signature Calculations for the Authorization Header: Transferring Payload in a Single
Chunk", Amazon S3 API Reference. The tests hold them against the examples printed there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from msgspec import Struct

from tongbao.infra.crypto import hmac_sha256
from tongbao.infra.settings import Secret

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
EMPTY_SHA256: Final = sha256(b"").hexdigest()


class S3Key(Struct, frozen=True):
    """Who signs, and for which region."""

    key_id: str
    secret: Secret
    region: str


def signed_headers(
    method: str,
    url: str,
    key: S3Key,
    *,
    at: datetime,
    payload_sha256: str = EMPTY_SHA256,
    headers: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the headers that prove a request to be ours; ``at`` is real time, UTC.

    ``headers`` are further ones to sign, by lower-case name. The host is signed and not returned:
    whoever sends the request writes it.
    """
    parts = urlsplit(url)
    moment = f"{at:%Y%m%dT%H%M%SZ}"
    sent = {**(headers or {}), "x-amz-content-sha256": payload_sha256, "x-amz-date": moment}
    usual = {"http": 80, "https": 443}[parts.scheme]
    host = parts.netloc if parts.port != usual else parts.netloc.rpartition(":")[0]
    signing = {"host": host, **sent}
    names = ";".join(sorted(signing))
    canonical = "\n".join(
        [
            method,
            quote(parts.path or "/", safe="/-_.~%"),
            _canonical_query(parts.query),
            *(f"{name}:{' '.join(signing[name].split())}" for name in sorted(signing)),
            "",
            names,
            payload_sha256,
        ]
    )
    scope = f"{at:%Y%m%d}/{key.region}/s3/aws4_request"
    to_sign = "\n".join([_ALGORITHM, moment, scope, sha256(canonical.encode()).hexdigest()])
    signature = hmac_sha256(_signing_key(key, scope), to_sign.encode()).hex()
    credential = f"Credential={key.key_id}/{scope}"
    authorization = f"{_ALGORITHM} {credential},SignedHeaders={names},Signature={signature}"
    return {**sent, "authorization": authorization}


def _signing_key(key: S3Key, scope: str) -> bytes:
    derived = b"AWS4" + key.secret.reveal().encode()
    for part in scope.split("/"):
        derived = hmac_sha256(derived, part.encode())
    return derived


def _canonical_query(query: str) -> str:
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~"))
                   for name, value in parse_qsl(query, keep_blank_values=True))  # fmt: skip
    return "&".join(f"{name}={value}" for name, value in pairs)
