"""Pictures for an application: uploaded one by one, each answered with the id that stands for it.

The request is multipart; what is signed of it is the JSON in its part ``meta``, which names the
file and its SHA-256 (`TheNorthMemory/wechatpay-openapi:docs/v3/merchant/media/upload.yaml`).
"""

from __future__ import annotations

import asyncio
import secrets
from hashlib import sha256
from typing import Final

import msgspec
from msgspec import Struct

from tongbao.rails.channels.capabilities.registrations import Picture
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Exchange, NotSent, Unknown
from tongbao.rails.channels.exchange import Request, decode
from tongbao.rails.channels.wechat_pay.gateway import (
    Answered,
    Gateway,
    Refused,
    signed_headers,
)

PATH: Final = "/v3/merchant/media/upload"
_SUFFIXES: Final = {"image/jpeg": "jpg", "image/png": "png"}


class _Uploaded(Struct, frozen=True):
    media_id: str = ""


async def upload(
    gateway: Gateway, account: ChannelAccount, picture: Picture, *, path: str = PATH
) -> tuple[str | Refused | NotSent | Unknown, Exchange]:
    """Upload a picture and return its id; uploading it again does no harm."""
    request = await asyncio.to_thread(_request, gateway, account, picture, path)
    heard, exchange = await gateway.send(account, request)
    if not isinstance(heard, Answered):
        return heard, exchange
    found = decode(heard.body, _Uploaded)
    if found is None or not found.media_id:
        return Unknown("the answer is no media id"), exchange
    return found.media_id, exchange


def _request(gateway: Gateway, account: ChannelAccount, picture: Picture, path: str) -> Request:
    """Return the upload, signed; its evidence names the picture and does not repeat it."""
    name = f"{picture.kind}.{_SUFFIXES[picture.media_type]}"
    digest = sha256(picture.content).hexdigest()
    meta = msgspec.json.encode({"filename": name, "sha256": digest})
    boundary = secrets.token_hex(16)
    disposition = 'Content-Disposition: form-data; name="'
    body = b"\r\n".join(
        (
            f"--{boundary}".encode(),
            f'{disposition}meta"'.encode(),
            b"Content-Type: application/json",
            b"",
            meta,
            f"--{boundary}".encode(),
            f'{disposition}file"; filename="{name}"'.encode(),
            f"Content-Type: {picture.media_type}".encode(),
            b"",
            picture.content,
            f"--{boundary}--".encode(),
            b"",
        )
    )
    headers = signed_headers(account, "POST", path, meta, gateway.real_now())
    return Request(
        method="POST",
        url=account.gateway + path,
        headers={**headers, "content-type": f"multipart/form-data; boundary={boundary}"},
        body=body,
        shown_url=account.gateway + path,
        shown_body=meta.decode(),
    )
