"""How WeChat Pay says no, how it checks a body, and how an answer is spoilt on purpose."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from tongbao_sandbox.faults import error_page, is_lost
from tongbao_sandbox.model import Fault
from tongbao_sandbox.seam import decode_object

NUMBER: Final = re.compile(r"[0-9A-Za-z_\-|*]{1,32}")
REFUND_NUMBER: Final = re.compile(r"[0-9A-Za-z_\-|*@]{1,64}")
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})


class Problem(Exception):
    """An error answer: ``{code, message, detail}`` with its HTTP status, never signed."""

    def __init__(
        self, status: int, code: str, message: str, detail: dict[str, Any] | None = None
    ) -> None:
        super().__init__(f"{status} {code} {message}")
        self.status = status
        self.content: dict[str, Any] = {"code": code, "message": message}
        if detail is not None:
            self.content["detail"] = detail


class Outcome(Struct, frozen=True):
    """What a handler wants answered. Content None is 204; bytes go out unsigned."""

    content: dict[str, Any] | bytes | None
    status: int = 200
    media: str = "application/json; charset=utf-8"
    ending: Literal["answer", "hold", "reset"] = "answer"
    delay_s: float = 0.0
    variant: str = "genuine"  # how it is signed


class Call(Struct, frozen=True):
    """One authenticated request, its path's variables read out."""

    origin: str  # the address the client used, with our prefix
    variables: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    wanted_serial: str = ""  # the key of ours that the merchant knows or encrypted for


Handler = Callable[[Call], Outcome]
"""What answers one route; it runs inside the request's transaction."""


def system_error() -> Problem:
    """Return the 500 after which nobody knows what happened."""
    return Problem(500, "SYSTEM_ERROR", "系统异常，请用相同参数重新调用")


def frequency_limited() -> Problem:
    """Return the 429 of a merchant who asks too often."""
    return Problem(429, "FREQUENCY_LIMITED", "频率超限，请求过于频繁，请稍后重试")


def spoilt(fault: Fault, do: Callable[[], Outcome]) -> Outcome:
    """Do it or not, then answer, or answer badly, as the fault's name says.

    Names say first how the answer fails and then, where that matters, whether the thing was done:
    ``time_out_paid``, ``http_500_not_done``.
    """
    name = fault.name
    if name == "http_429":
        raise frequency_limited()
    if name == "reset":
        return Outcome(None, ending="reset")
    outcome = Outcome(None) if is_lost(name) else do()
    if name.startswith("time_out"):
        return replace(outcome, ending="hold")
    if name.startswith("http_500"):
        raise system_error()
    if name.startswith("http_"):  # not WeChat Pay's word but that of a proxy before it
        status, content = error_page(name)
        return Outcome(content, status=status, media="text/html")
    if name.startswith("bad_signature"):
        return replace(outcome, variant="forged")
    if name == "slow":
        return replace(outcome, delay_s=fault.seconds(3))
    return outcome


# Checking a body --------------------------------------------------------------------------


class Rule(Struct, frozen=True):
    """What one field of a body must look like."""

    pointer: str  # /amount/total
    kind: type
    required: bool = True
    length_max: int = 0
    check: Callable[[Any], bool] | None = None


def checked(body: bytes, rules: tuple[Rule, ...]) -> dict[str, Any]:
    """Return the body's object when every rule holds, or raise PARAM_ERROR with its detail."""
    content = decode_object(body)
    if content is None:
        raise Problem(400, "PARAM_ERROR", "请求体不是合法的JSON对象")
    for rule in rules:
        _check(content, rule)
    return content


def parameter_error(
    field: str, value: Any, issue: str, location: str = "body", message: str = "参数错误"
) -> Problem:
    """Return PARAM_ERROR naming the field, what it held, and what is wrong with it."""
    detail = {"field": field, "value": value, "issue": issue, "location": location}
    return Problem(400, "PARAM_ERROR", message, detail)


def at(content: Any, pointer: str) -> Any:
    """Return what lies at a JSON pointer, or None."""
    for step in pointer.strip("/").split("/"):
        if not isinstance(content, dict) or step not in content:
            return None
        content = content[step]
    return content


def _check(content: dict[str, Any], rule: Rule) -> None:
    value = at(content, rule.pointer)
    if value is None or value == "":
        if rule.required:
            raise parameter_error(rule.pointer, "", "必填参数缺失")
        return
    if not isinstance(value, rule.kind) or (rule.kind is int and isinstance(value, bool)):
        raise parameter_error(rule.pointer, value, "参数类型不符")
    if rule.length_max and len(str(value)) > rule.length_max:
        raise parameter_error(rule.pointer, value, f"长度超过{rule.length_max}")
    if rule.check is not None and not rule.check(value):
        raise parameter_error(rule.pointer, value, "参数值不符合规则")


def is_number(value: str) -> bool:
    """Whether a merchant's order number has the allowed letters and length."""
    return NUMBER.fullmatch(value) is not None


def is_refund_number(value: str) -> bool:
    """Whether a merchant's refund number has the allowed letters and length."""
    return REFUND_NUMBER.fullmatch(value) is not None


def is_notify_url(value: str) -> bool:
    """Whether a callback address is https without a query; http only on this very machine."""
    parts = urlsplit(value)
    secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    return secure and bool(parts.netloc) and not parts.query and not parts.fragment


def is_positive(value: int) -> bool:
    """Whether an amount is at least one fen."""
    return value > 0


def read_time(value: str) -> datetime | None:
    """Return the moment of an RFC 3339 text with a zone, or None."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment
