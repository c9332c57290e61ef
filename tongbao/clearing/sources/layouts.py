"""Load layouts: strictly, and checked against themselves before they read anything."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec.structs import replace

from tongbao.clearing.sources.model import NAME, Fields, Layout, LayoutWrong, Trailer
from tongbao.clearing.sources.reading import PARSERS
from tongbao.clearing.sources.text_files import fields_of
from tongbao.kernel.money import EXPONENTS

LAYOUT_BYTES_MAX: Final = 64 * 1024
_GROUPS: Final = frozenset({"count", "sum", "credit", "debit"})
_SCALE_MAX: Final = 6
_PATTERN_MAX: Final = 500


@cache
def built_in() -> dict[str, Layout]:
    """Return the layouts that come with the program, by name."""
    content = Path(__file__).with_name("layouts.toml").read_bytes()
    found = tomllib.loads(content.decode())["layout"]
    layouts = [_checked(each) for each in found]
    return {layout.name: layout for layout in layouts}


def load_layout(content: bytes) -> Layout:
    """Return the layout that a TOML file describes.

    Raises:
        LayoutWrong: it names the field and what is wrong with it.
    """
    if len(content) > LAYOUT_BYTES_MAX:
        raise LayoutWrong(problem="the file is larger than a layout")
    try:
        found = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as failure:
        raise LayoutWrong(problem=str(failure)[:200]) from None
    return _checked(found)


def decode_layout(text: str) -> Layout:
    """Return a layout as it is kept in the database."""
    return msgspec.json.decode(text, type=Layout)


def _checked(found: object) -> Layout:
    try:
        layout = msgspec.convert(found, Layout)
    except msgspec.ValidationError as failure:
        raise LayoutWrong(problem=str(failure)[:200]) from None
    problem = problem_of(layout)
    if problem is not None:
        raise LayoutWrong(layout=layout.name[:64], problem=problem)
    return _with_names(layout)


def _with_names(layout: Layout) -> Layout:
    """Give the fields of a fixed width, which stand in no column, their own names as columns."""
    if layout.format != "fixed" or layout.fields is None:
        return layout
    named = {
        name: replace(field, column=field.column or name)
        for name, field in fields_of(layout.fields)
    }
    return replace(layout, fields=replace(layout.fields, **named))


def problem_of(layout: Layout) -> str | None:
    """Return what is wrong with a layout, or None."""
    return (
        _problem_of_head(layout)
        or _problem_of_format(layout)
        or _problem_of_fields(layout)
        or _problem_of_kinds(layout)
        or (None if layout.trailer is None else _problem_of_trailer(layout.trailer))
    )


def _problem_of_head(layout: Layout) -> str | None:
    if not re.fullmatch(NAME, layout.name):
        return "name: lower-case letters, digits, dots and underscores, 2 to 64"
    if not layout.en.strip() or not layout.zh.strip():
        return "en, zh: what the source is called in both languages"
    if layout.currency not in EXPONENTS:
        return "currency: an ISO 4217 code"
    if layout.bytes_max <= 0 or layout.rows_max <= 0:
        return "bytes_max, rows_max: above nought"
    try:
        ZoneInfo(layout.zone)
    except (ZoneInfoNotFoundError, ValueError):
        return "zone: a name of the time zone database, such as Asia/Shanghai"
    return None


def _problem_of_format(layout: Layout) -> str | None:
    if layout.format == "channel":
        known = ", ".join(sorted(PARSERS))
        return None if layout.parser in PARSERS else f"parser: one of {known}"
    is_table = layout.format in {"delimited", "xlsx"}
    checks = (
        (layout.fields is None, "fields: number, at and amount (or credit and debit)"),
        (
            layout.format == "xml" and not layout.row,
            "row: the path of a row's element, such as Stmt/Ntry",
        ),
        (
            is_table and bool(layout.header) == bool(layout.names),
            "header, names: one of the two, so that columns have names",
        ),
        (
            layout.format == "delimited" and (len(layout.separator) != 1 or len(layout.quote) > 1),
            "separator: one character; quote: one, or none",
        ),
        (bool(layout.quote and layout.prefix), "quote, prefix: not both"),
        (layout.within_days < 0, "within_days: not below nought"),
        (
            bool(layout.owners)
            and layout.format not in {"xml", "mt940"}
            and (layout.fields is None or layout.fields.owner is None),
            "owners: they need fields.owner",
        ),
    )
    return next((problem for is_wrong, problem in checks if is_wrong), None)


def _problem_of_fields(layout: Layout) -> str | None:
    fields = layout.fields
    if fields is None:
        return None
    both = fields.credit is not None and fields.debit is not None
    either = fields.credit is not None or fields.debit is not None
    if (fields.amount is None and not both) or (fields.amount is not None and either):
        return "fields: amount, or credit and debit"
    for name, field in fields_of(fields):
        if not 0 <= field.scale <= _SCALE_MAX:
            return f"fields.{name}.scale: 0 to {_SCALE_MAX}"
        if layout.format == "fixed" and (field.width <= 0 or field.start < 0):
            return f"fields.{name}: start and width"
        if layout.format != "fixed" and not field.places:
            return f"fields.{name}: column or columns"
    return _overlap(layout, fields)


def _overlap(layout: Layout, fields: Fields) -> str | None:
    if layout.format != "fixed":
        return None
    spans = sorted((field.start, field.start + field.width, name) for name, field in
                   fields_of(fields))  # fmt: skip
    for (_, end, first), (start, _, second) in pairwise(spans):
        if start < end:
            return f"fields.{first} and fields.{second} overlap"
    return None


def _problem_of_kinds(layout: Layout) -> str | None:
    has_words = layout.format == "channel"  # its parser reads them
    has_words = has_words or (layout.fields is not None and layout.fields.word is not None)
    if layout.kinds and not has_words:
        return "kinds: they need fields.word"
    words = [word for kind in layout.kinds for word in kind.words]
    if len(words) != len(set(words)):
        return "kinds: a word stands in two of them"
    return None


def _problem_of_trailer(trailer: Trailer) -> str | None:
    if not trailer.begins:
        return "trailer.begins: what its line begins with"
    if not trailer.pattern:
        is_any = trailer.count or trailer.sum or trailer.credit or trailer.debit
        return None if is_any else "trailer: count, sum, credit or debit"
    if len(trailer.pattern) > _PATTERN_MAX or trailer.names_first:
        return f"trailer.pattern: at most {_PATTERN_MAX} characters, and without names_first"
    try:
        groups = re.compile(trailer.pattern).groupindex
    except re.error as failure:
        return f"trailer.pattern: {failure}"
    return (
        None if groups.keys() & _GROUPS else "trailer.pattern: a group count, sum, credit or debit"
    )
