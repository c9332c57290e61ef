"""JSON Schemas as people read them: rows of fields, and a body that would be accepted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

Schema = Mapping[str, Any]

DEPTH_MAX: Final = 3
_TYPICAL: Final = ("sandbox", "qr", "pending", "active", "enabled", "delivered", "merchant")
_PREFIX: Final = "#/components/schemas/"
_LIKELY: Final[Mapping[str, Any]] = {
    "amount": 1999,
    "channel": "wechat_pay",
    "created_at": "2026-11-21T02:00:00Z",
    "currency": "CNY",
    "description": "shop, new orders",
    "event_types": ["payment.*"],
    "holder_name": "张三",
    "merchant_order_no": "20261121-0001",
    "merchant_refund_no": "20261121-0001-R1",
    "note": "hello",
    "overlap_s": 3600,
    "reason": "out of stock",
    "subject": "two cups of tea",
    "url": "https://shop.example/webhooks",
}


class Field(Struct, frozen=True):
    """One field of a body or one parameter, its nesting told by dots in its name."""

    name: str
    type: str
    required: bool
    limits: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    default: str | None = None
    text: str = ""


class Schemas:
    """The named schemas of a document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._named: Mapping[str, Schema] = document["components"]["schemas"]

    def resolve(self, schema: Schema) -> Schema:
        """Return what a reference refers to; a value or null is the value."""
        if "$ref" in schema:
            return self._named[schema["$ref"].removeprefix(_PREFIX)]
        if "anyOf" in schema:
            choices = [each for each in schema["anyOf"] if each.get("type") != "null"]
            if len(choices) == 1:
                return {**self.resolve(choices[0]), **_without(schema, "anyOf")}
        return schema

    def fields(self, schema: Schema, *, prefix: str = "", depth: int = 0) -> Iterator[Field]:
        """Yield the fields of an object, those of objects inside it after their own row."""
        plain = self.resolve(schema)
        required = set(plain.get("required", ()))
        for name, given in plain.get("properties", {}).items():
            inner = self.resolve(given)
            yield self.field(f"{prefix}{name}", given, required=name in required)
            if depth < DEPTH_MAX:
                place, nested = f"{prefix}{name}.", inner
                if inner.get("type") == "array":
                    place, nested = f"{prefix}{name}[].", self.resolve(inner.get("items", {}))
                yield from self.fields(nested, prefix=place, depth=depth + 1)

    def field(self, name: str, schema: Schema, *, required: bool, text: str = "") -> Field:
        """Return one field."""
        plain = self.resolve(schema)
        default = plain.get("default")
        return Field(
            name=name,
            type=self._type(schema),
            required=required,
            limits=tuple(_limits(plain)),
            choices=tuple(str(each) for each in plain.get("enum", ())),
            default=None if default in (None, {}, []) else str(default),
            text=text or (str(schema.get("description", "")) if "$ref" not in schema else ""),
        )

    def example(self, schema: Schema, name: str = "", *, everything: bool = True) -> Any:
        """Return a value that fits; ``everything`` adds what may be left out."""
        plain = self.resolve(schema)
        if "enum" in plain:
            choices = plain["enum"]
            return next((each for each in _TYPICAL if each in choices), choices[0])
        kind = plain.get("type")
        if kind == "object":
            return self._object(plain, everything=everything)
        if kind == "array":
            inside = plain.get("items", {})
            return _LIKELY.get(name) or [self.example(inside, everything=everything)]
        return _scalar(plain, name)

    def _object(self, plain: Schema, *, everything: bool) -> dict[str, Any]:
        required = set(plain.get("required", ()))
        return {
            name: self.example(given, name, everything=everything)
            for name, given in plain.get("properties", {}).items()
            if everything or name in required
        }

    def _type(self, schema: Schema) -> str:
        plain = self.resolve(schema)
        kind = plain.get("type")
        if kind == "array":
            return f"{self._type(plain.get('items', {}))}[]"
        if kind == "object" and "additionalProperties" in plain and not plain.get("properties"):
            inside = plain["additionalProperties"]
            return f"object of {self._type(inside)}" if isinstance(inside, dict) else "object"
        if "enum" in plain and kind is None:
            return "string"
        return str(kind or "any")


def _scalar(plain: Schema, name: str) -> Any:
    if name in _LIKELY:
        return _LIKELY[name]
    kind = plain.get("type")
    if kind == "integer":
        return plain.get("minimum", 0)
    if kind == "boolean":
        return True
    if name.endswith("_at"):
        return _LIKELY["created_at"]
    return "…" if kind == "string" else None


def _limits(plain: Schema) -> Iterator[str]:
    low, high = plain.get("minLength"), plain.get("maxLength")
    if high is not None or (low or 0) > 1:
        yield f"{low or 0} … {high if high is not None else '∞'}"
    least, most = plain.get("minimum"), plain.get("maximum")
    if least is not None or most is not None:
        yield f"{least if least is not None else '−∞'} … {most if most is not None else '∞'}"
    if "pattern" in plain:
        yield str(plain["pattern"])


def _without(schema: Schema, name: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != name}
