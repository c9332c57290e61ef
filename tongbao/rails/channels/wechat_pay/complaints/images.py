"""Pictures of complaints at WeChat Pay: the customer's fetched, ours sent up before the answer.

A history names a picture by an address. Its last part is the id, and it is fetched from the
account's own gateway, whatever host the address names. What is fetched is not signed
(pay.weixin.qq.com/docs/partner/apis/consumer-complaint/images: JPG, BMP or PNG up to 2 MB).
"""

from __future__ import annotations

import asyncio
import re
from typing import Final
from urllib.parse import unquote, urlsplit

from tongbao.infra.http import HttpReply
from tongbao.rails.channels.capabilities.registrations import Picture
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Absent, Answer, Declined, NotSent, Unknown
from tongbao.rails.channels.exchange import Request, ask, picture_in, unshown
from tongbao.rails.channels.wechat_pay.gateway import Gateway, Refused, in_path, signed_headers
from tongbao.rails.channels.wechat_pay.registering import pictures

PATH: Final = "/v3/merchant-service/images"
UPLOAD: Final = f"{PATH}/upload"
BYTES_MAX: Final = 2 * 1024 * 1024
_ID: Final = re.compile(r"[A-Za-z0-9_.~+/=-]{1,256}")


def id_of(address: str) -> str | None:
    """Return the id of a picture by its address in a history, or None where it is no such one."""
    try:
        path = urlsplit(address).path
    except ValueError:
        return None
    found = unquote(path.removeprefix(f"{PATH}/"))
    return found if path.startswith(f"{PATH}/") and _ID.fullmatch(found) else None


async def fetch(
    gateway: Gateway, account: ChannelAccount, ref: str
) -> Answer[bytes | Absent | Declined | Unknown]:
    """Return a picture by its id."""
    target = f"{PATH}/{in_path(ref)}"
    headers = await asyncio.to_thread(
        signed_headers, account, "GET", target, b"", gateway.real_now()
    )
    url = account.gateway + target
    request = Request("GET", url, headers, b"", shown_url=url, shown_body="")
    reply, exchange = await ask(
        gateway.http, request, timeout_s=gateway.limits.ask_s, reply_max_bytes=BYTES_MAX
    )
    if not isinstance(reply, HttpReply):
        return Answer(Unknown(reply.reason), exchange)
    return Answer(picture_in(reply), unshown(exchange, len(reply.body)))


async def send(
    gateway: Gateway, account: ChannelAccount, media_type: str, content: bytes
) -> Answer[str | Declined | NotSent | Unknown]:
    """Send a picture up and return the id that an answer names."""
    picture = Picture("evidence", media_type, content)
    heard, exchange = await pictures.upload(gateway, account, picture, path=UPLOAD)
    if isinstance(heard, Refused):
        return Answer(Declined(heard.code, heard.message), exchange)
    return Answer(heard, exchange)
