"""Who opened a page inside WeChat (网页授权, snsapi_base): there and back, without a question.

The browser goes to ``connect/oauth2/authorize`` and comes back with a code; ``sns/oauth2`` tells
the openid behind it. These are not of WeChat Pay's API: other hosts, the official account's secret
in the query, answers in plain JSON that nobody signs. What they say is only ever used as the payer
of an order, which WeChat Pay itself checks.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from msgspec import Struct

from tongbao.kernel.licence import Mode
from tongbao.rails.channels.capabilities.payers import Identified, IdentifyOutcome
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Answer, Declined, NotSent, Unknown
from tongbao.rails.channels.exchange import MASK, Request, ask, decode
from tongbao.rails.channels.wechat_pay.gateway import Gateway, secrets_of

PAGE_HOST: Final = "https://open.weixin.qq.com"
API_HOST: Final = "https://api.weixin.qq.com"
_SCOPE: Final = "snsapi_base"
_BUSY: Final = -1  # errcode: try again later


class _Token(Struct):
    openid: str = ""
    errcode: int = 0
    errmsg: str = ""


def address(account: ChannelAccount, back_url: str, state: str) -> str | None:
    """Return the address for the browser, its fields in the one order WeChat takes them in."""
    if not secrets_of(account).app_secret:
        return None
    host = PAGE_HOST if account.mode is Mode.LIVE else account.gateway
    fields = {
        "appid": account.app_id,
        "redirect_uri": back_url,
        "response_type": "code",
        "scope": _SCOPE,
        "state": state,
    }
    return f"{host}/connect/oauth2/authorize?{urlencode(fields)}#wechat_redirect"


async def identify(gateway: Gateway, account: ChannelAccount, code: str) -> Answer[IdentifyOutcome]:
    """Return the openid behind a code."""
    secret = secrets_of(account).app_secret
    host = API_HOST if account.mode is Mode.LIVE else account.gateway
    path = f"{host}/sns/oauth2/access_token"
    fields = {"appid": account.app_id, "secret": secret, "code": code}
    url = f"{path}?{urlencode({**fields, 'grant_type': 'authorization_code'})}"
    shown = f"{path}?{urlencode({**fields, 'secret': MASK, 'code': MASK}, safe='*')}"
    request = Request("GET", url, {"accept": "application/json"}, b"", shown, "", (secret, code))
    reply, exchange = await ask(gateway.http, request, timeout_s=gateway.limits.ask_s)
    if isinstance(reply, NotSent | Unknown):
        return Answer(reply, exchange)
    told = decode(reply.body, _Token)
    if told is None or reply.status != 200:
        return Answer(Unknown(f"status {reply.status}, and no token"), exchange)
    if told.openid:
        return Answer(Identified(told.openid), exchange)
    if told.errcode in {0, _BUSY}:
        return Answer(Unknown("no openid"), exchange)
    return Answer(Declined(str(told.errcode), told.errmsg[:200]), exchange)
