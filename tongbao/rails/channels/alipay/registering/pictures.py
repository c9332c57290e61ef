"""Pictures for an application: uploaded one by one, each answered with the id that stands for it.

The request is multipart; what is signed of it are the fields beside the file, as in every form
(`ant.merchant.expand.indirect.image.upload`, AntMerchantExpandIndirectImageUploadRequest).
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final
from urllib.parse import urlencode

from msgspec import Struct

from tongbao.rails.channels.alipay.crypto import request_text, sign
from tongbao.rails.channels.alipay.gateway import (
    USER_AGENT,
    Answered,
    Gateway,
    Refused,
    gateway_address,
    secrets_of,
)
from tongbao.rails.channels.capabilities.registrations import Picture
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Exchange, NotSent, Unknown
from tongbao.rails.channels.exchange import Request, decode

METHOD: Final = "ant.merchant.expand.indirect.image.upload"
_SUFFIXES: Final = {"image/jpeg": "jpg", "image/png": "png"}


class _Uploaded(Struct, frozen=True):
    image_id: str = ""


async def upload(
    gateway: Gateway, account: ChannelAccount, picture: Picture, *, method: str = METHOD
) -> tuple[str | Refused | NotSent | Unknown, Exchange]:
    """Upload a picture and return its id; uploading it again does no harm."""
    request = await asyncio.to_thread(_request, gateway, account, picture, method)
    heard, exchange = await gateway.send(account, method, request)
    if not isinstance(heard, Answered):
        return heard, exchange
    found = decode(heard.node, _Uploaded)
    if found is None or not found.image_id:
        return Unknown("the answer is no image id"), exchange
    return found.image_id, exchange


def _request(gateway: Gateway, account: ChannelAccount, picture: Picture, method: str) -> Request:
    """Return the upload, signed; its evidence names the picture and does not repeat it."""
    suffix, keys = _SUFFIXES[picture.media_type], secrets_of(account)
    name, boundary = f"{picture.kind}.{suffix}", secrets.token_hex(16)
    fields = {**gateway.common_fields(account, method), "image_type": suffix}
    signature = sign(keys.app_private_key_pem, request_text(fields))
    disposition = f'form-data; name="image_content"; filename="{name}"'
    body = b"\r\n".join(
        (
            f"--{boundary}".encode(),
            f"Content-Disposition: {disposition}".encode(),
            f"Content-Type: {picture.media_type}".encode(),
            b"",
            picture.content,
            f"--{boundary}--".encode(),
            b"",
        )
    )
    address = gateway_address(account)
    return Request(
        method="POST",
        url=f"{address}?{urlencode({**fields, 'sign': signature})}",
        headers={
            "accept": "application/json",
            "user-agent": USER_AGENT,
            "content-type": f"multipart/form-data; boundary={boundary}",
        },
        body=body,
        shown_url=f"{address}?{urlencode(fields)}",
        shown_body=name,
        hidden=(keys.app_auth_token,),
    )
