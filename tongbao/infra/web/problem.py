"""Problems: every refusal as RFC 9457 problem details, with a code that never changes.

The body of an unexpected failure is constant apart from the request id; what happened is logged
once, under the same id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from tongbao.infra.telemetry import redact_text
from tongbao.kernel.errors import (
    Busy,
    Conflict,
    Fact,
    Forbidden,
    Invalid,
    NotFound,
    Overloaded,
    Refusal,
    Rejected,
    TooLarge,
    Unauthenticated,
)

MEDIA_TYPE: Final = "application/problem+json"
AUTHENTICATION_SCHEME: Final = "TONGBAO-HMAC-SHA256"


class InternalError(Refusal):
    """The platform failed in a way it did not foresee; whether anything changed is unknown."""

    code = "service.internal_error"
    advice = "Repeat the same request with the same Idempotency-Key; if it persists, report the id."
    advice_zh = "请使用相同的 Idempotency-Key 重试；若仍失败，请提供 request_id 联系我们。"


class TooManyRequests(Overloaded):
    """This caller sends more than was agreed."""

    code = "request.rate_limited"
    advice = "Wait Retry-After seconds and spread requests out."
    advice_zh = "请在 Retry-After 秒后重试，并降低请求频率。"


class RouteUnknown(NotFound):
    """There is nothing at this path."""

    code = "request.not_found"
    advice = "Compare the path with the API reference."
    advice_zh = "请对照接口文档检查请求路径。"


class MethodNotAllowed(Invalid):
    """The path exists and does not take this method."""

    code = "request.method_not_allowed"
    advice = "Use one of the methods of the Allow header."
    advice_zh = "请使用响应头 Allow 中列出的方法。"


class MediaTypeUnsupported(Invalid):
    """The body is not JSON, or it is compressed."""

    code = "request.media_type_unsupported"
    advice = "Send Content-Type: application/json and no Content-Encoding."
    advice_zh = "请以 application/json 发送且不要压缩请求体。"


class BodyTooLarge(TooLarge):
    """The body is larger than any request needs."""

    code = "request.body_too_large"
    advice = "Send at most 1 MiB."
    advice_zh = "请求体不得超过 1 MiB。"


class BodyTooSlow(Invalid):
    """The body did not arrive in time."""

    code = "request.body_too_slow"
    advice = "Send the whole body within 30 seconds."
    advice_zh = "请在 30 秒内发送完整请求体。"


_STATUS_OF_KIND: Final[tuple[tuple[type[Refusal], int], ...]] = (
    (InternalError, 500),
    (Overloaded, 429),
    (MethodNotAllowed, 405),
    (MediaTypeUnsupported, 415),
    (BodyTooSlow, 408),
    (Invalid, 400),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (TooLarge, 413),
    (Rejected, 422),
    (Busy, 503),
)


ANSWER_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)
"""What every answer carries that does not say otherwise itself: no browser makes a page of it."""


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request was not done, and what its sender can do about it."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    advice: str
    doc_url: str
    request_id: str
    param: str | None = None
    facts: dict[str, Fact] = {}


class Rendered(Struct, frozen=True):
    """A problem as it goes over the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def status_of(kind: type[Refusal]) -> int:
    """Return the HTTP status of a kind of refusal."""
    return next((status for known, status in _STATUS_OF_KIND if issubclass(kind, known)), 422)


def title_of(kind: type[Refusal]) -> str:
    """Return the one sentence that is the same for every occurrence: the class's own."""
    return (kind.__doc__ or kind.code).strip().split("\n", 1)[0]


def problem_of(refusal: Refusal, *, request_id: str, language: str, docs_url: str) -> Problem:
    """Return the refusal in the words and the language of its reader."""
    kind = type(refusal)
    title = title_of(kind)
    # A fact may repeat what was sent, and people send what they should not.
    facts = {name: _shown(fact) for name, fact in refusal.facts.items()}
    shown = ", ".join(f"{name}={fact}" for name, fact in facts.items())
    page = f"{docs_url}#{kind.code}"
    return Problem(
        type=page,
        title=title,
        status=status_of(kind),
        code=kind.code,
        detail=f"{title} ({shown})" if shown else title,
        advice=kind.advice_zh if language == "zh" else kind.advice,
        doc_url=page,
        request_id=request_id,
        param=None if refusal.param is None else redact_text(refusal.param),
        facts=facts,
    )


def _shown(fact: Fact) -> Fact:
    return redact_text(fact) if isinstance(fact, str) else fact


def wait_of(refusal: Refusal) -> str | None:
    """Return what Retry-After says of a refusal: seconds, where waiting helps."""
    wait_s = refusal.facts.get("retry_after_s", getattr(refusal, "retry_after_s", None))
    return None if wait_s is None else str(wait_s)


def render(refusal: Refusal, *, request_id: str, language: str, docs_url: str) -> Rendered:
    """Return status, headers and body of the refusal."""
    problem = problem_of(refusal, request_id=request_id, language=language, docs_url=docs_url)
    headers = {"content-type": MEDIA_TYPE, "content-language": language}
    if (wait_s := wait_of(refusal)) is not None:
        headers["retry-after"] = wait_s
    if isinstance(refusal, Unauthenticated):
        headers["www-authenticate"] = AUTHENTICATION_SCHEME
    if isinstance(refusal, MethodNotAllowed):
        headers["allow"] = str(refusal.facts.get("allow", ""))
    if isinstance(refusal, BodyTooLarge | BodyTooSlow):
        headers["connection"] = "close"  # the rest of the body is not worth reading
    return Rendered(problem.status, headers, msgspec.json.encode(problem))


def language_of(accept_language: str) -> str:
    """Return zh when the reader prefers it to English, else en."""
    best, best_weight = "en", 0.0
    for part in accept_language.lower().split(","):
        tag, _, parameters = part.strip().partition(";")
        primary = tag.strip().partition("-")[0]
        weight = _weight(parameters)
        if primary in {"en", "zh"} and weight > best_weight:
            best, best_weight = primary, weight
    return best


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
