"""The routes of the request log: what the merchant's own programs asked, and how it went."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from litestar import get, post
from msgspec import UNSET, Struct, UnsetType

from tongbao.infra.db import Db
from tongbao.infra.request_log.lines import RequestLog
from tongbao.infra.request_log.model import (
    Asked,
    Line,
    ReplayOfReplay,
    RequestNotLogged,
    RequestNotWhole,
    Wanted,
)
from tongbao.infra.request_log.queries import line_of_merchant, lines_of_merchant
from tongbao.infra.serving.app import App
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.request import ApiRequest
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page

_REPLAY: Final = "/v1/request_log/{request_id}/replay"


class RequestView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request of the merchant's own: of a sandbox key also what it said, masked."""

    id: str  # as the answer's X-Request-Id said
    object: Literal["request"]
    mode: Mode
    key_id: str
    created_at: datetime
    method: str
    route: str  # the path with names for its ids
    status: int
    duration_us: int
    is_replayable: bool  # nothing of what was sent is masked, too long or left out
    code: str | UnsetType = UNSET  # of the refusal
    target: str | UnsetType = UNSET
    body: Any = UNSET
    answer: Any = UNSET


class ReplayView(Struct, frozen=True, kw_only=True):
    """What came of sending a request again."""

    object: Literal["request_replay"]
    replayed: str
    request_id: str
    status: int
    answer: Any


@get("/v1/request_log/{request_id:str}", opt=needs("request_log:read", refuses=[RequestNotLogged]))
async def get_logged_request(
    request_id: str, db: Db, caller: Caller, request_log: RequestLog
) -> RequestView:
    """Return one request of the merchant's own."""
    await request_log.write()
    line = await line_of_merchant(db, caller.merchant_id, caller.mode, parse("req", request_id))
    return _view(line)


@get("/v1/request_log", opt=needs("request_log:read"))
async def list_logged_requests(
    db: Db,
    caller: Caller,
    request_log: RequestLog,
    *,
    method: str | None = None,
    route: str | None = None,
    status: int | None = None,
    code: str | None = None,
    key_id: str | None = None,
    created_from: datetime | None = None,
    created_to: datetime | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[RequestView]:
    """Return the merchant's own requests, newest first, by what they asked and how it went.

    A request is there within about a second. The log is for finding mistakes: where very many come
    at once some have no line, and what waits when a process dies is lost.
    """
    await request_log.write()
    wanted = Wanted(
        method=method,
        route=route,
        status=status,
        code=code,
        key_id=None if key_id is None else parse("key", key_id),
        since=created_from,
        until=created_to,
    )
    whose = (caller.merchant_id, caller.mode)
    page = await lines_of_merchant(db, whose, wanted, cursor=cursor, limit=limit)
    return Page([_view(line) for line in page.items], page.next_cursor)


@post(
    _REPLAY.replace("{request_id}", "{request_id:str}"),
    status_code=200,
    opt=needs(
        "request_log:read",
        idempotent=True,
        sandbox_only=True,
        refuses=[RequestNotLogged, RequestNotWhole, ReplayOfReplay],
    ),
)
async def replay_request(
    request_id: str,
    request: ApiRequest,
    *,
    db: Db,
    caller: Caller,
    api: App,
    request_log: RequestLog,
) -> ReplayView:
    """Send a logged request once more, under this key and its rights.

    The replay's own Idempotency-Key is that of the request it sends, so repeating one is safe. The
    request is served by itself: a refusal of it is the answer, not a refusal of the replay.
    """
    await request_log.write()
    line = await line_of_merchant(db, caller.merchant_id, caller.mode, parse("req", request_id))
    if line.route == _REPLAY:
        raise ReplayOfReplay
    if not line.is_whole or line.target is None:
        raise RequestNotWhole
    body = b"" if line.body is None else line.body.encode()
    asked = Asked(line.method, line.target, body, request.idempotency_key)
    answered = await api.again(caller, asked)
    return ReplayView(
        object="request_replay",
        replayed=request_id,
        request_id=answered.request_id,
        status=answered.status,
        answer=msgspec.json.decode(answered.body) if answered.body else None,
    )


ROUTES = [get_logged_request, list_logged_requests, replay_request]


def _view(line: Line) -> RequestView:
    return RequestView(
        id=show("req", line.id),
        object="request",
        mode=line.mode,
        key_id=show("key", line.key_id),
        created_at=line.at,
        method=line.method,
        route=line.route,
        status=line.status,
        duration_us=line.duration_us,
        is_replayable=line.is_whole and line.route != _REPLAY,
        code=line.code or UNSET,
        target=line.target or UNSET,
        body=UNSET if line.body is None else msgspec.json.decode(line.body),
        answer=UNSET if line.answer is None else msgspec.json.decode(line.answer),
    )
