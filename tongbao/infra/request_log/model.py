"""Lines of the request log: what is kept of a request, and how it is masked. No I/O."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra.card_watch import MADE_FOR_NUMBERS
from tongbao.infra.telemetry import REMOVED, redact, redact_text
from tongbao.infra.web.caller import Caller
from tongbao.kernel.errors import NotFound, Rejected
from tongbao.kernel.licence import Mode

KEPT_BYTES_MAX: Final = 4096
"""A longer body or answer is not kept: the log shows what went wrong, it is no archive."""
_PERSONAL: Final = frozenset(
    {"phone", "mobile", "email", "holder", "legal_name", "real_name", "address", "plate"}
)
_REFUSED: Final = 400


class RequestNotLogged(NotFound):
    """The log has no such request of this merchant in this mode: of another, or too long ago."""

    code = "request_log.not_found"
    advice = "List the log; a line is there a moment after its answer, and not for ever."
    advice_zh = "请查询请求日志；记录在应答后稍候可见，且只保留一段时间。"


class RequestNotWhole(Rejected):
    """The log has not all of what was sent, so that it cannot be sent again."""

    code = "request_log.not_whole"
    advice = "Send the request from your program: what is masked or too long is not kept."
    advice_zh = "该请求含有已脱敏或过长的内容，未完整保存，请由您的程序重新发送。"


class ReplayOfReplay(Rejected):
    """A replay is replayed by replaying what it replayed."""

    code = "request_log.replay_of_replay"
    advice = "Replay the request that the replay was of."
    advice_zh = "请直接重放原始请求，而不是重放“重放请求”。"


class Heard(Struct, frozen=True, gc=False):
    """A request that was just answered, as it is until somebody has time to write it down."""

    request_id: UUID
    caller: Caller | bytes  # or the Authorization header of one who is proved
    method: str
    route: str
    target: str
    status: int
    seconds: float
    body: bytes
    answer: bytes


class Asked(Struct, frozen=True):
    """A request that is to be served once more."""

    method: str
    target: str
    body: bytes
    idempotency_key: str


class Answered(Struct, frozen=True):
    """What came of it."""

    request_id: str
    status: int
    body: bytes


class Line(Struct, frozen=True):
    """One row of request_line."""

    merchant_id: UUID
    mode: Mode
    id: UUID
    key_id: UUID
    at: datetime
    method: str
    route: str
    status: int
    code: str | None
    duration_us: int
    target: str | None
    body: str | None
    answer: str | None
    is_whole: bool


class Wanted(Struct, frozen=True, kw_only=True):
    """Which lines to list; what is None does not matter."""

    method: str | None = None
    route: str | None = None
    status: int | None = None
    code: str | None = None
    key_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


def line_of(heard: Heard, caller: Caller, *, with_bodies: bool) -> Line:
    """Return what is kept of a request: of real money's neither what was sent nor what was said."""
    code = _code(heard.answer) if heard.status >= _REFUSED else None
    target = body = answer = None
    is_whole = False
    if with_bodies and caller.mode is Mode.SANDBOX:
        target, same_target = _masked_text(heard.target)
        body, same_body = masked(heard.body)
        answer, _ = masked(heard.answer)
        is_whole = same_target and same_body
    return Line(
        merchant_id=caller.merchant_id,
        mode=caller.mode,
        id=heard.request_id,
        key_id=caller.key_id,
        at=_moment(heard.request_id),
        method=heard.method,
        route=heard.route,
        status=heard.status,
        code=code,
        duration_us=int(heard.seconds * 1_000_000),
        target=target,
        body=body,
        answer=answer,
        is_whole=is_whole,
    )


def masked(raw: bytes) -> tuple[str | None, bool]:
    """Return JSON without what must not be kept, and whether that is all of it.

    Secrets, numbers of cards and people, and payment codes go by the rules for logs; fields that
    are made for numbers, and a person's particulars, go whole.
    """
    if not raw:
        return None, True
    if len(raw) > KEPT_BYTES_MAX:
        return None, False
    try:
        sent = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, False
    clean = redact(None, "", {"sent": _without_fields(sent)})["sent"]
    text = msgspec.json.encode(clean).decode()
    return text.replace("\\u0000", REMOVED), clean == sent


def _without_fields(value: Any) -> Any:
    match value:
        case dict():
            return {
                name: REMOVED if _is_personal(name, inside) else _without_fields(inside)
                for name, inside in value.items()
            }
        case list():
            return [_without_fields(each) for each in value]
        case _:
            return value


def _is_personal(name: str, value: object) -> bool:
    named = name in MADE_FOR_NUMBERS or name in _PERSONAL
    return named and value is not None and not isinstance(value, bool)


def _masked_text(target: str) -> tuple[str | None, bool]:
    if len(target) > KEPT_BYTES_MAX:
        return None, False
    clean = redact_text(target)
    return clean, clean == target


def _code(answer: bytes) -> str | None:
    try:
        problem = msgspec.json.decode(answer, type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return problem.code


class _Problem(Struct, frozen=True):
    code: str


def _moment(request_id: UUID) -> datetime:
    """Return when the id was made: the first 48 bits of a UUIDv7 are milliseconds."""
    return datetime.fromtimestamp((request_id.int >> 80) / 1000, UTC)
