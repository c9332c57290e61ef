"""The request log: what the developer's programs asked, how it went, and send it once more."""

from __future__ import annotations

from typing import Any, Final
from uuid import uuid4

import msgspec
from msgspec import Struct

from tongbao.infra.request_log.model import (
    Answered,
    Asked,
    Line,
    ReplayOfReplay,
    RequestNotWhole,
    Wanted,
)
from tongbao.infra.request_log.queries import line_of_merchant, lines_of_merchant
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import parse
from tongbao.surfaces.developer_portal.visit import Visit
from tongbao.surfaces.page_kit.replies import Reply

METHODS: Final = ("GET", "POST", "PATCH", "DELETE")
REPLAY: Final = "/v1/request_log/{request_id}/replay"
_PAGE: Final = 25


class Chosen(Struct, frozen=True):
    """The filters of the list as they stand in its form."""

    method: str = ""
    route: str = ""
    status: str = ""
    code: str = ""
    key: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is chosen."""
        return self == Chosen()

    @property
    def wanted(self) -> Wanted:
        """Return what to look for; what cannot be read is as if it were not chosen."""
        is_status = self.status.isdecimal() and len(self.status) == 3
        try:
            key_id = parse("key", self.key) if self.key else None
        except Refusal:
            key_id = None
        return Wanted(
            method=self.method if self.method in METHODS else None,
            route=self.route or None,
            status=int(self.status) if is_status else None,
            code=self.code or None,
            key_id=key_id,
        )


async def show_requests(visit: Visit) -> Reply:
    """List the requests, newest first, by what they asked and how it went."""
    query = visit.request.query
    chosen = Chosen(
        **{name: query.get(name, "").strip()[:200] for name in Chosen.__struct_fields__}
    )
    await visit.desk.request_log.write()
    page = await lines_of_merchant(
        visit.desk.db, visit.whose, chosen.wanted, cursor=query.get("cursor"), limit=_PAGE
    )
    facts = {
        "lines": page.items,
        "older": visit.further(page.next_cursor),
        "chosen": chosen,
        "methods": METHODS,
    }
    return visit.page("requests.html", facts)


async def show_request(visit: Visit) -> Reply:
    """Show one request: what was said, masked, and what was answered.

    Raises:
        RequestNotLogged
    """
    line = await _line(visit)
    facts = {
        "line": line,
        "sent": None if line.body is None else msgspec.json.decode(line.body),
        "answered": None if line.answer is None else msgspec.json.decode(line.answer),
        "once": uuid4().hex,
        "may_replay": line.is_whole and line.route != REPLAY and line.target is not None,
    }
    return visit.page("request.html", facts)


async def replay_one(visit: Visit) -> Reply:
    """Send a request once more under a key of the developer's, and show what came of it.

    The form names the Idempotency-Key: whoever sends it twice is answered the same.

    Raises:
        RequestNotLogged, ReplayOfReplay, RequestNotWhole, NoKeyAtHand
    """
    line = await _line(visit)
    if line.route == REPLAY:
        raise ReplayOfReplay
    if not line.is_whole or line.target is None:
        raise RequestNotWhole
    once = visit.request.form.get("once", "")
    once = once if once.isascii() and once.isalnum() and len(once) <= 64 else uuid4().hex
    body = b"" if line.body is None else line.body.encode()
    key = await visit.key_at_hand(line.key_id)
    answered = await visit.ask(key, Asked(line.method, line.target, body, once))
    return show_answer(visit, f"{line.method} {line.target}", answered)


def show_answer(visit: Visit, asked: str, answered: Answered) -> Reply:
    """Show what the API answered to something that was asked by a page."""
    said: Any = None
    if answered.body:
        try:
            said = msgspec.json.decode(answered.body)
        except msgspec.DecodeError:  # a file, as a statement is one
            said = answered.body.decode(errors="replace")
    facts = {
        "asked": asked,
        "status": answered.status,
        "request_id": answered.request_id,
        "said": said,
    }
    return visit.page("answer.html", facts)


async def _line(visit: Visit) -> Line:
    await visit.desk.request_log.write()
    asked = parse("req", visit.params["request_id"])
    return await line_of_merchant(visit.desk.db, *visit.whose, asked)
