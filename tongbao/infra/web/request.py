"""Reading a request: strict JSON into Structs, and one named refusal per way of getting it wrong.

The framework would turn the text "100" into the number 100; money does not travel that way, so
bodies are decoded here, strictly, from the very bytes that were signed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Final, cast

import msgspec
from litestar import Request
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from msgspec import Meta

from tongbao.infra.db_failures import ValueOutOfRange
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.problem import InternalError, MethodNotAllowed, RouteUnknown
from tongbao.infra.web.uploads import Incoming
from tongbao.kernel.errors import Invalid, Refusal
from tongbao.kernel.money import AMOUNT_MAX, EXPONENTS

AmountField = Annotated[
    int,
    Meta(
        description="Whole minor units, fen for CNY.",
        extra_json_schema={"minimum": 1, "maximum": AMOUNT_MAX},
    ),
]
"""A field for `kernel.money.positive` to check, which has a refusal of its own; the limits are for
the document only."""
CurrencyField = Annotated[
    str, Meta(description="ISO 4217.", extra_json_schema={"enum": sorted(EXPONENTS)})
]
"""The same for the currency."""
NumberField = Annotated[
    str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_\-|*@.]+(?!\n)$")
]
"""A number the merchant gives to something of its own. (Python's ``$`` would let a line feed end
it, and its ``\\w`` takes letters that other languages' does not.)"""
KEY_HEADER: Final = "idempotency-key"
KEY_LENGTH_MAX: Final = 255
_KEY: Final = KEY_HEADER.encode()


class MalformedJson(Invalid):
    """The body is not JSON."""

    code = "request.malformed_json"
    advice = "Send one JSON object in UTF-8."
    advice_zh = "请发送 UTF-8 编码的 JSON 对象。"


class BodyMissing(Invalid):
    """The body is empty and this route needs one."""

    code = "request.body_missing"
    advice = "Send the JSON object the API reference describes for this route."
    advice_zh = "该接口需要 JSON 请求体，请对照接口文档。"


class BodyUnexpected(Invalid):
    """The request has a body and this route takes none."""

    code = "request.body_unexpected"
    advice = "Send no body."
    advice_zh = "该接口不接受请求体。"


class UnknownField(Invalid):
    """The request has a field or parameter that does not exist."""

    code = "request.unknown_field"
    advice = "Remove the field named in param or correct its spelling."
    advice_zh = "请删除或更正 param 所示的字段。"


class MissingField(Invalid):
    """A required field or parameter is absent."""

    code = "request.missing_field"
    advice = "Add the field named in param."
    advice_zh = "请补充 param 所示的字段。"


class WrongType(Invalid):
    """A value has another JSON type than the field."""

    code = "request.wrong_type"
    advice = "Send the type the API reference gives for the field named in param."
    advice_zh = "请按接口文档为 param 所示字段使用正确的类型。"


class InvalidValue(Invalid):
    """A value has the right type and is not one the field takes."""

    code = "request.invalid_value"
    advice = "Send a value within the limits the API reference gives for the field in param."
    advice_zh = "请按接口文档为 param 所示字段填写允许的取值。"


class RepeatedParameter(Invalid):
    """A query parameter is given more than once."""

    code = "request.repeated_parameter"
    advice = "Give each query parameter once."
    advice_zh = "每个查询参数只能出现一次。"


class KeyMissing(Invalid):
    """The request changes something and has no Idempotency-Key."""

    code = "idempotency.key_missing"
    advice = "Send an Idempotency-Key of your own, new for every operation, the same on retries."
    advice_zh = "请为每次操作生成唯一的 Idempotency-Key，重试时保持不变。"


class KeyTooLong(Invalid):
    """The Idempotency-Key is longer than 255 characters, or has unprintable ones."""

    code = "idempotency.key_too_long"
    advice = "Send 1 to 255 printable ASCII characters; a UUID is a good key."
    advice_zh = "Idempotency-Key 应为 1 至 255 个可见 ASCII 字符，建议使用 UUID。"


class ApiRequest(Request[Any, Any, Any]):
    """A request of a proved caller whose body was read whole before anything looked at it."""

    async def json(self) -> Any:
        """Decode the body into the type the route handler declares for ``data``."""
        field = self.route_handler.parsed_data_field
        return decode(await self.body(), field.annotation if field else Any)

    @property
    def caller(self) -> Caller:
        """Return who signed this request."""
        return cast("Caller", self.scope["state"]["caller"])

    @property
    def raw(self) -> bytes:
        """Return the body as it was signed."""
        return cast("bytes", self.scope["state"]["body"])

    @property
    def incoming(self) -> Incoming:
        """Return the file that is about to come, where the route takes one."""
        return cast("Incoming", self.scope["state"]["incoming"])

    @property
    def operation(self) -> str:
        """Return method and path template: ``POST /v1/payments/{payment_id}/refunds``."""
        return f"{self.method} {self.scope['path_template']}"

    @property
    def idempotency_key(self) -> str:
        """Return the caller's key of this operation.

        Raises:
            KeyMissing, KeyTooLong
        """
        # Straight from the headers as they came: of one, the framework would read them all.
        found = next((value for name, value in self.scope["headers"] if name == _KEY), b"")
        key = found.decode("latin-1").strip()
        if not key:
            raise KeyMissing(param="Idempotency-Key")
        if len(key) > KEY_LENGTH_MAX or not (key.isascii() and key.isprintable()):
            raise KeyTooLong(param="Idempotency-Key", length=len(key))
        return key


_NUL_ESCAPE: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_WITH_OFFSET: Final = re.compile(r"([Zz]|[+-]\d\d:?\d\d)$")
_AT: Final = re.compile(r" - at (?:`key` in )?`(\$.*)`$", re.DOTALL)
_NAMED: Final = re.compile(r"^Object (missing required|contains unknown) field `(.*)`$", re.DOTALL)
_MISSING_PARAMETER: Final = re.compile(r"^Missing required (\w+) parameter '([^']+)'")
_SHOWN_MAX: Final = 64


@lru_cache(maxsize=1024)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def decode(body: bytes, kind: Any) -> Any:
    """Decode JSON strictly into ``kind``.

    Raises:
        MalformedJson, UnknownField, MissingField, WrongType, InvalidValue
    """
    if b"\\u0000" in body and _NUL_ESCAPE.search(body):
        raise InvalidValue(param="$", reason="the character U+0000 is not text")
    try:
        return _decoder(kind).decode(body)
    except msgspec.ValidationError as failure:
        raise refusal_of_validation(str(failure)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as failure:
        raise MalformedJson(reason=str(failure)[:_SHOWN_MAX]) from None


def refusal_of_validation(text: str, root: str = "$") -> Refusal:
    """Return the refusal for what msgspec said about a value; ``root`` is where it was found."""
    at = _AT.search(text)
    where = root + at.group(1)[1:] if at else root
    reason = text[: at.start()] if at else text
    if named := _NAMED.match(reason):
        trouble, name = named.groups()
        if trouble == "missing required":
            return MissingField(param=f"{where}.{name}" if root == "$" else where)
        return UnknownField(param=f"{where}.{name[:_SHOWN_MAX]}")
    if reason.startswith("Expected") and ", got " in reason:
        return WrongType(param=where, reason=reason[:_SHOWN_MAX])
    if reason.startswith("Invalid enum value"):
        reason = "not one of the values it takes"  # and what was sent is not repeated
    return InvalidValue(param=where, reason=reason[:_SHOWN_MAX])


def refusal_of_exception(exception: Exception) -> Refusal:
    """Return the refusal for anything that left a route handler or the router."""
    if isinstance(exception, Refusal):
        return exception
    if isinstance(exception, ValidationException):
        return _refusal_of_parameters(exception)
    if isinstance(exception, MethodNotAllowedException):
        allowed = (exception.headers or {}).get("allow", "")
        named = sorted(set(allowed.split(", ")) - {"OPTIONS"})
        return MethodNotAllowed(allow=", ".join(named))
    if isinstance(exception, NotFoundException):
        return RouteUnknown()
    if isinstance(exception, ValueOutOfRange):
        reason = "a number or time is beyond what can be kept"
    elif isinstance(exception, HTTPException) and exception.status_code < 500:
        reason = exception.detail[:_SHOWN_MAX]
    else:
        return InternalError()
    return InvalidValue(reason=reason)


def _refusal_of_parameters(exception: ValidationException) -> Refusal:
    if missing := _MISSING_PARAMETER.match(exception.detail):
        return MissingField(param=missing.group(2))
    found = exception.extra[0] if isinstance(exception.extra, list) and exception.extra else {}
    key = str(found.get("key", ""))
    if key == "data":
        return BodyMissing(param="$")
    return refusal_of_validation(str(found.get("message", "")), root=key or "query")


def check_query(given: Sequence[tuple[str, str]], taken: Mapping[str, frozenset[Any]]) -> None:
    """Refuse what the route does not take, and what the framework would guess a meaning for.

    Raises:
        UnknownField, WrongType, InvalidValue, RepeatedParameter
    """
    for name, value in given:
        if name not in taken:
            raise UnknownField(param=name[:64])
        if value.lower() == "null" and str not in taken[name]:
            raise WrongType(param=name, reason="null is no value of a query parameter")
        if datetime in taken[name] and not _WITH_OFFSET.search(value):
            raise InvalidValue(param=name, reason="a moment needs its offset from UTC, or Z")
    for name, times in Counter(name for name, _ in given).items():
        if times > 1:
            raise RepeatedParameter(param=name)
