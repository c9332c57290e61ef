"""The panel's server: reads a page's question, does what a form says, and shows the page again.

It does nothing the control API cannot do, and does it through the control API. Forms post and are
answered with a redirect, so that a reload repeats nothing. No page from elsewhere can post: the
browser says whose page a form stood on, and a request without that word is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from tongbao.kernel.clock import business_date
from tongbao_sandbox import magic
from tongbao_sandbox.control import NOWHERE, SENSELESS, Control
from tongbao_sandbox.delivery import PostOffice
from tongbao_sandbox.faults import FAULTS
from tongbao_sandbox.origin import is_loopback, is_own
from tongbao_sandbox.panel import pages, texts
from tongbao_sandbox.panel.matters import matters_of
from tongbao_sandbox.seam import Channel, Refused, Reply, Request, World

PANEL: Final = "/panel"
MOST: Final = 50
"""How many trades are listed."""
SETTLE_S: Final = 0.5
"""How long an action waits for what it set off, so that the page shows the end of it."""

_STYLE: Final = Path(__file__).with_name("panel.css")
_BODY_MAX: Final = 16 * 1024
_CODES: Final = frozenset({"alipay", "unionpay", "unionpay_qra", "wechat"})
_BILLS: Final = frozenset({"alipay", "unionpay", "wechat"})
_ENTRIES: Final[Mapping[str, str]] = {
    "bank": "order.",
    "cards": "entry.",
    "messages": "letter.",
    "objects": "object.",
    "registers": "question.",
}
"""Who keeps no trades that a customer meets, and how its transactions' names begin."""
_TOOLS: Final[Mapping[str, tuple[str, ...]]] = {
    "alipay": ("rotate-certificate",),
    "cards": ("hang-up",),
    "unionpay": ("rotate",),
    "wechat": ("next-certificate",),
}
_EVERYWHERE: Final = ("pay", "query", "close", "refund")
_ONLINE: Final = (*_EVERYWHERE, "refund_query", "callback")
_POINTS: Final[Mapping[str, tuple[str, ...]]] = {
    "alipay": (
        *(*_ONLINE, "bill", "split", "split_query", "receiver", "transfer", "transfer_query"),
        *("agreement", "agreement_query", "parking", "applyment", "applyment_query"),
        *("media", "complaint", "complaint_query"),
    ),
    "bank": ("pay",),
    "cards": (*_EVERYWHERE, "capture", "void", "totals", "sign_in"),
    "messages": ("send",),
    "objects": ("put", "get"),
    "registers": ("ask",),
    "unionpay": (*_ONLINE, "bill"),
    "unionpay_qra": _ONLINE,
    "wechat": (
        *(*_ONLINE, "bill", "split", "split_query", "split_return", "transfer", "transfer_query"),
        *("agreement", "identify", "applyment", "applyment_query", "media", "complaint"),
    ),
}
"""Where each institution may fail. What may go wrong there is the control API's own list."""
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_SAFE: Final = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)

Fields = dict[str, str]


class Panel:
    """Answers everything below ``/panel``."""

    def __init__(
        self,
        world: World,
        channels: Mapping[str, Channel],
        control: Control,
        post_office: PostOffice,
    ) -> None:
        self._world = world
        self._channels = sorted(channels)
        self._control = control
        self._post = post_office
        self._actions: dict[str, Callable[[str, Fields], Any]] = {
            "clock": self._advance,
            "trade": self._meet,
            "code": self._make_code,
            "fault": self._arm,
            "disarm": self._disarm,
            "callback": self._change_callback,
            "hold": self._hold,
            "bill": self._make_bill,
            "matter": self._decide,
            "tool": self._use_tool,
        }

    async def answer(self, request: Request) -> Reply:
        """Answer one request; what waits is done outside the transaction."""
        if not is_loopback(request):
            return Reply(421, _SAFE)
        if not request.prefix:
            return _there(PANEL)
        if request.method == "POST":
            return await self._act(request)
        if request.method not in {"GET", "HEAD"}:
            return Reply(405, (("Allow", "GET, HEAD, POST"), *_SAFE))
        return self._show(request)

    # Pages --------------------------------------------------------------------------------------

    def _show(self, request: Request) -> Reply:
        query = dict(parse_qsl(request.query))
        path = request.path.strip("/")
        if path == _STYLE.name:
            return Reply(200, (("Content-Type", "text/css"), *_SAFE), _STYLE.read_bytes())
        if query.get("lang") in {"en", "zh"}:
            cookie = f"panel_language={query['lang']}; Path={PANEL}; HttpOnly; SameSite=Strict"
            return _there(f"{PANEL}/{path}".rstrip("/"), ("Set-Cookie", cookie))
        if path and path not in self._channels:
            return _html(404, pages.bare(self._look(request), "nothing_there"))
        did = query.get("did", "")
        look = self._look(request, at=path, done=did if did in {*self._actions} else "")
        return _html(200, self._page(look, query.get("number", "")[:64]))

    def _look(self, request: Request, **more: Any) -> pages.Look:
        clock = self._world.clock
        return pages.Look(
            language=_language(request),
            parties=self._channels,
            now=clock.now(),
            ahead_s=clock.offset_s,
            **more,
        )

    def _page(self, look: pages.Look, number: str = "") -> str:
        with self._world.state.begin():
            if not look.at:
                return pages.overview(look, [self._party(one) for one in self._channels])
            return pages.party(look, self._desk(look, number))

    def _party(self, channel: str) -> pages.Party:
        faults = [one for one in self._world.faults.list() if one.channel == channel]
        state = self._world.state
        if channel in _ENTRIES:
            every = state.count_documents(channel, _ENTRIES[channel])
            return pages.Party(channel, every, None, len(faults))
        return pages.Party(channel, *state.count_trades(channel), len(faults))

    def _desk(self, look: pages.Look, number: str) -> pages.Desk:
        channel, state = look.at, self._world.state
        calls_back = "callback" in _POINTS[channel]
        return pages.Desk(
            trades=None if channel in _ENTRIES else state.newest_trades(channel, number, MOST),
            counts=state.count_trades(channel),
            number=number,
            most=MOST,
            codes=state.newest_codes(channel, 5) if channel in _CODES else None,
            callbacks=self._post.newest_callbacks(channel, MOST) if calls_back else None,
            is_holding=bool(state.setting(f"{channel}.hold_callbacks", False)),
            faults=[one for one in self._world.faults.list() if one.channel == channel],
            names={on: sorted(FAULTS[on], key=_silence_first) for on in _POINTS[channel]},
            day=business_date(look.now).isoformat() if channel in _BILLS else None,
            matters=matters_of(self._world, channel),
            amounts=magic.amounts_of(channel),
            tools=_TOOLS.get(channel, ()),
        )

    # Actions ------------------------------------------------------------------------------------

    async def _act(self, request: Request) -> Reply:
        if not is_own(request):
            return _html(403, pages.bare(self._look(request), "elsewhere"))
        channel, _, action = request.path.strip("/").rpartition("/")
        act = self._actions.get(action)
        if act is None or (channel not in self._channels and (channel or action != "clock")):
            return _html(404, pages.bare(self._look(request), "nothing_there"))
        try:
            fields = _fields(request)
            with self._world.state.begin():
                act(channel, fields)
        except SENSELESS as refusal:
            look = self._look(request, at=channel, refusal=str(refusal))
            return _html(400, self._page(look))
        await self._post.settle(SETTLE_S)
        where = f"{PANEL}/{channel}".rstrip("/")
        return _there(f"{where}?did={action}")

    def _tell(self, path: str, **body: Any) -> None:
        if self._control.do("POST", path, {}, body) is NOWHERE:
            raise Refused(f"nothing is at {path}")

    def _advance(self, _channel: str, fields: Fields) -> None:
        self._tell("clock", advance_s=float(fields["advance_s"]))

    def _meet(self, channel: str, fields: Fields) -> None:
        self._tell(
            "customer/scan", channel=channel, number=fields["number"], action=fields["action"]
        )

    def _make_code(self, channel: str, fields: Fields) -> None:
        self._tell("customer/payment-code", channel=channel, behaviour=fields["behaviour"])

    def _arm(self, channel: str, fields: Fields) -> None:
        on, _, name = fields["what"].partition(":")
        argument = fields.get("argument", "").strip()
        self._tell(
            "faults",
            channel=channel,
            on=on,
            fault=f"{name}:{argument}" if argument else name,
            number=fields.get("number", "").strip(),
            times=int(fields.get("times") or 1),
        )

    def _disarm(self, _channel: str, fields: Fields) -> None:
        self._control.do("DELETE", f"faults/{int(fields['id'])}", {}, {})

    def _change_callback(self, _channel: str, fields: Fields) -> None:
        self._tell(f"callbacks/{int(fields['id'])}/{fields['change']}")

    def _hold(self, channel: str, fields: Fields) -> None:
        self._tell("settings", **{f"{channel}.hold_callbacks": fields["action"] == "1"})

    def _make_bill(self, channel: str, fields: Fields) -> None:
        self._tell(f"{channel}/bill/make", day=fields["day"])

    def _decide(self, channel: str, fields: Fields) -> None:
        asked = (fields["kind"], fields["number"])
        for one in matters_of(self._world, channel):
            if (one.kind, one.number) == asked and fields["choice"] in one.choices:
                body = {"number": one.number, one.word: fields["choice"]}
                return self._tell(f"{channel}/{one.path}", **body)
        raise Refused("it is no longer to be decided so")

    def _use_tool(self, channel: str, fields: Fields) -> None:
        if fields["tool"] not in _TOOLS.get(channel, ()):
            raise Refused("there is no such thing to do")
        self._tell(f"{channel}/{fields['tool']}")


def _silence_first(fault: str) -> tuple[bool, str]:
    """Return the order of faults in a list: what is met most often stands first."""
    return not fault.startswith("time_out"), fault


def _fields(request: Request) -> Fields:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded" or len(request.body) > _BODY_MAX:
        raise Refused("this is no form")
    text = request.body.decode("utf-8", "replace")
    return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=32))


def _language(request: Request) -> texts.Language:
    """Return what was chosen before, or what the browser likes best."""
    try:
        cookies = SimpleCookie(request.headers.get("cookie", ""))
    except CookieError:
        cookies = SimpleCookie()
    chosen = cookies["panel_language"].value if "panel_language" in cookies else ""
    liked = chosen or request.headers.get("accept-language", "")
    return "zh" if liked.lower().startswith("zh") else "en"


def _html(status: int, content: str) -> Reply:
    return Reply(status, (("Content-Type", "text/html; charset=utf-8"), *_SAFE), content.encode())


def _there(where: str, *headers: tuple[str, str]) -> Reply:
    return Reply(303, (("Location", where), *headers, *_SAFE))
