"""Pictures of complaints at Alipay: the customer's fetched, ours sent up before the answer.

The customer's are told as addresses on hosts of the vendor's, so only those are asked, and the
sandbox's own. Ours go up with `alipay.merchant.image.upload` (AlipayMerchantImageUploadRequest)
and are named by `reply_images`, with commas between them.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from tongbao.infra.http import HttpReply
from tongbao.rails.channels.alipay.gateway import USER_AGENT, Gateway, Refused
from tongbao.rails.channels.alipay.registering import pictures
from tongbao.rails.channels.capabilities.registrations import Picture
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Absent, Answer, Declined, NotSent, Unknown
from tongbao.rails.channels.exchange import Request, ask, picture_in, unsent, unshown

UPLOAD: Final = "alipay.merchant.image.upload"
BYTES_MAX: Final = 5 * 1024 * 1024
_HOSTS: Final = (".alipay.com", ".alipayobjects.com", ".alicdn.com", ".taobao.com")
_LENGTH_MAX: Final = 512


def is_taken(address: str) -> bool:
    """Tell whether this can be kept as the address of a picture."""
    return 0 < len(address) <= _LENGTH_MAX and address.isascii() and address.isprintable()


def may_fetch(account: ChannelAccount, address: str) -> bool:
    """Tell whether a picture may be fetched from there: from the vendor's hosts, encrypted."""
    try:
        asked, own = urlsplit(address), urlsplit(account.gateway)
        if (asked.scheme, asked.netloc) == (own.scheme, own.netloc):
            return True
        host, port = f".{asked.hostname or ''}", asked.port
    except ValueError:
        return False
    plain = asked.username is None and port in {None, 443}
    return asked.scheme == "https" and plain and host.endswith(_HOSTS)


async def fetch(
    gateway: Gateway, account: ChannelAccount, address: str
) -> Answer[bytes | Absent | Declined | Unknown]:
    """Return a picture by its address; nothing of ours is sent along."""
    if not may_fetch(account, address):
        return Answer(Declined("foreign_host"), unsent("GET", address, "not a host of Alipay's"))
    headers = {"accept": "image/*", "user-agent": USER_AGENT}
    request = Request("GET", address, headers, b"", shown_url=address, shown_body="")
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
    heard, exchange = await pictures.upload(gateway, account, picture, method=UPLOAD)
    if isinstance(heard, Refused):
        return Answer(Declined(heard.shown_code, heard.message), exchange)
    return Answer(heard, exchange)
