"""Who opened a page inside WeChat (网页授权, snsapi_base): the browser's address and the API's.

The real ones are on hosts of their own, open.weixin.qq.com and api.weixin.qq.com; here both are
below the channel's prefix. Codes serve once, for five minutes of real time, and are forgotten when
the sandbox ends. Everybody who comes is another customer, unless the browser has our cookie.
"""

from __future__ import annotations

import secrets
import time
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import msgspec

from tongbao_sandbox import faults
from tongbao_sandbox.seam import Reply, Request, World
from tongbao_sandbox.wechat_crypto import Vault

PAGE: Final = "/connect/oauth2/authorize"
TOKEN: Final = "/sns/oauth2/access_token"  # noqa: S105 - a path
PATHS: Final = frozenset({PAGE, TOKEN})
_ORDER: Final = ["appid", "redirect_uri", "response_type", "scope", "state"]
_CODE_S: Final = 300.0
_COOKIE: Final = "sandbox_openid"

faults.allow("identify", "http_500", "busy")


class Identities:
    """Hands out codes to browsers, and openids for codes."""

    def __init__(self, world: World, vault: Vault) -> None:
        self._world = world
        self._vault = vault
        self._codes: dict[str, tuple[float, str]] = {}

    def answer(self, request: Request) -> Reply:
        """Answer the browser or the merchant's server."""
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        return self._page(request, query) if request.path == PAGE else self._token(query)

    def _page(self, request: Request, query: dict[str, str]) -> Reply:
        back = query.get("redirect_uri", "")
        rightly = (
            list(query) == _ORDER
            and query["appid"] == self._vault.appid
            and query["response_type"] == "code"
            and query["scope"] == "snsapi_base"
        )
        if not rightly or urlsplit(back).scheme not in {"http", "https"}:
            return Reply(200, (("Content-Type", "text/html"),), "该链接无法访问".encode())
        openid = _known(request) or "o" + secrets.token_urlsafe(21)[:27]
        code = secrets.token_hex(16)
        self._codes[code] = (time.monotonic() + _CODE_S, openid)
        fields = urlencode({"code": code, "state": query["state"]})
        back = quote(back, safe="%/:?&=#@+,;~!$'()*[]")
        to = f"{back}{'&' if urlsplit(back).query else '?'}{fields}"
        kept = ("Set-Cookie", f"{_COOKIE}={openid}; Path={request.prefix}; HttpOnly")
        return Reply(302, (("Location", to), kept, ("Cache-Control", "no-store")))

    def _token(self, query: dict[str, str]) -> Reply:
        fault = self._world.faults.take("wechat", "identify", "").name
        if fault == "http_500":
            return Reply(500)
        if fault == "busy":
            return _json({"errcode": -1, "errmsg": "system error"})
        if query.get("appid") != self._vault.appid:
            return _json({"errcode": 40013, "errmsg": "invalid appid"})
        if not secrets.compare_digest(query.get("secret", ""), self._vault.app_secret):
            return _json({"errcode": 40125, "errmsg": "invalid appsecret"})
        until, openid = self._codes.pop(query.get("code", ""), (0.0, ""))
        if query.get("grant_type") != "authorization_code" or until < time.monotonic():
            return _json({"errcode": 40029, "errmsg": "invalid code"})
        token = {"access_token": secrets.token_urlsafe(60), "expires_in": 7200}
        return _json({**token, "openid": openid, "scope": "snsapi_base"})


def _known(request: Request) -> str:
    for part in request.headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == _COOKIE:
            return value
    return ""


def _json(content: dict[str, Any]) -> Reply:
    return Reply(200, (("Content-Type", "text/plain"),), msgspec.json.encode(content))
