"""Evidence as people may read it: laid out, and without what tells who the customer is.

What is stored stays byte for byte; this is only how it is shown. Names of fields are those of the
channels' own documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime
from itertools import groupby
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from tongbao.kernel.clock import business_date

MASKED_FIELDS: Final = frozenset(
    {
        "alipay_logon_id",
        "alipay_open_id",
        "alipay_user_id",
        "auth_code",
        "buyer_id",
        "buyer_logon_id",
        "buyer_open_id",
        "buyer_user_id",
        "buyer_user_name",
        "client_ip",
        "external_logon_id",
        "openid",
        "payer",
        "payer_client_ip",
        "principal_id",
        "sp_openid",
        "spbill_create_ip",
        "sub_openid",
        "user_received_account",
    }
)
_NAMES: Final = "|".join(sorted(MASKED_FIELDS))
# A text may end anywhere, cut at the length that is kept, so that no closing sign is waited for.
_IN_JSON: Final = re.compile(rf'(\\*"(?:{_NAMES})\\*"\s*:\s*\\*")((?:[^"\\]|\\[^"])*)')
_IN_JSON_AS_NUMBER: Final = re.compile(rf'(\\*"(?:{_NAMES})\\*"\s*:\s*)(\d+)')
_IN_FORM: Final = re.compile(rf"((?<![\w%])(?:{_NAMES})=)([^&\s]*)")
_IN_CODED_JSON: Final = re.compile(
    rf"(%22(?:{_NAMES})%22%3A(?:\+|%20)*(?:%22)?)((?:(?!%22|%7D|%2C|&)\S)*)", re.IGNORECASE
)
_IN_XML: Final = re.compile(rf"(<(?:{_NAMES})>(?:<!\[CDATA\[)?)([^<\]]*)")

_CREDITOR: Final = re.compile(r"(<Cdtr>\s*<Nm>)([^<]*)")  # ISO 20022: whom a payout is for
_FORMS: Final = (_IN_JSON, _IN_JSON_AS_NUMBER, _IN_FORM, _IN_CODED_JSON, _IN_XML, _CREDITOR)


def masked(text: str) -> str:
    """Return a name or number of a person with its middle left out."""
    plain = unquote(text)
    if not plain:
        return ""
    if len(plain) < 8:
        return "•••"
    return f"{plain[:3]}•••{plain[-2:]}"


def readable(text: str) -> str:
    """Return a request, a reply or a notification laid out and masked.

    An exchange's text is header lines, then bodies, each after an empty line; what is JSON is
    indented, what is a form stays one line, and whatever else is left as it came.
    """
    return "\n\n".join(_block(block) for block in text.split("\n\n"))


def masked_tree(value: Any) -> Any:
    """Return JSON-like data with the values of masked fields masked, texts inside included."""
    if isinstance(value, dict):
        return {
            name: masked(str(each))
            if name in MASKED_FIELDS and isinstance(each, str | int)
            else masked_tree(each)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [masked_tree(each) for each in value]
    return masked_text(value) if isinstance(value, str) else value


def masked_text(text: str) -> str:
    """Return a text with the values of masked fields masked, in JSON, forms and XML alike."""
    for form in _FORMS:
        text = form.sub(lambda found: f"{found[1]}{masked(found[2])}", text)
    return text


def _block(block: str) -> str:
    laid_out = _json(block)
    if laid_out is not None:
        return laid_out
    if block.startswith("<"):
        return masked_text(block.replace("><", ">\n<"))
    lines = block.split("\n")
    return "\n".join(_json(line) or masked_text(line) for line in lines)


def _json(text: str) -> str | None:
    if text[:1] not in {"{", "["}:
        return None
    try:
        tree = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    return msgspec.json.format(msgspec.json.encode(masked_tree(tree)), indent=2).decode()


class Sheet(Struct, frozen=True):
    """One document of evidence, laid out and masked."""

    label: str
    text: str


class Entry(Struct, frozen=True):
    """One thing that happened."""

    at: datetime
    rank: int  # the order among what carries one time
    kind: str
    id: str
    title: str
    note: str = ""
    tone: str = "plain"
    sheets: tuple[Sheet, ...] = ()
    replays: str | None = None  # the delivery that may be sent again


def by_day(unordered: Iterable[Entry]) -> list[tuple[date, list[Entry]]]:
    """Return what happened in the order it happened, business day by business day."""
    ordered = sorted(unordered, key=lambda each: (each.at, each.rank))
    return [
        (day, list(happened))
        for day, happened in groupby(ordered, key=lambda each: business_date(each.at))
    ]
