"""Watch for card data where it does not belong: in requests, in tables, in files.

A request to the API that carries a card number or a track outside the few fields made for one is
refused before it is authenticated, logged or kept, and one with a security code always is: PCI DSS
4.0.1 requirements 3.3.1 and 3.4.1, 银发〔2017〕45号. The refusal names the field and repeats
nothing. Notices of channels cannot be refused; `infra.telemetry` masks what is logged of anything.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

import msgspec
from msgspec import Struct

from tongbao.infra.db import Db, Query
from tongbao.kernel.card_numbers import sights
from tongbao.kernel.errors import Invalid

MADE_FOR_NUMBERS: Final = frozenset(
    {"number", "account", "account_number", "card_number", "bank_account", "auth_code", "track2"}
    | {"csv", "content", "id_number", "bank_number", "chip_hex", "pin_block_hex", "cryptogram"}
)
"""Fields in which a card's or an account's number may stand, wherever they are in a request."""
# Such a field with digits and no more, as a till sends the code it has scanned. Not one whose name
# only ends like it: within a text or a name, the quote before it is escaped.
_PLAIN_NUMBER: Final = re.compile(
    rb'(?<!\\)"(?:%b)"\s{0,8}:\s{0,8}"[0-9 -]{0,40}"' % "|".join(sorted(MADE_FOR_NUMBERS)).encode()
)
_AS_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_ENOUGH_DIGITS: Final = b"0" * 13
_SECURITY_CODE: Final = re.compile(
    rb'"(?:card_?)?(?:cv[nvc]2?|c[sv]c2?|cid|security_?code|verification_?(?:code|value))"\s*:',
    re.IGNORECASE,
)
_NOT_READ: Final = frozenset(
    {b"authorization", b"signature", b"signature-input", b"content-digest", b"cookie", b"dpop"}
)
_LINE_MAX: Final = 1 << 20


class CardNumberUnexpected(Invalid):
    """A card number or a track stands in a field that is not made for one."""

    code = "card_number.unexpected"
    advice = "Take the card number out; keep cards in the vault and name them by id or token."
    advice_zh = "请移除卡号；请将银行卡保存在保险库中，并以标识或令牌引用。"


class SecurityCodeNotTaken(Invalid):
    """A card's security code came: it is not needed, not kept, and not taken in any field."""

    code = "card_number.security_code"
    advice = "Do not send security codes, and make sure that you do not keep them either."
    advice_zh = "请勿上送或保存卡片安全码（CVN/CVV）。"


class Spot(Struct, frozen=True):
    """Where card data was found, with no more of it than may be shown."""

    where: str  # table.column, or the file's name
    row: str  # the row's place in its table, or the line
    kind: str
    shown: str


def check_request(
    path: str, query: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> None:
    """Raise where a request carries card data that it must not.

    Raises:
        CardNumberUnexpected, SecurityCodeNotTaken
    """
    if _may_have_code(body) and _SECURITY_CODE.search(body):
        raise SecurityCodeNotTaken
    rest = b"\n".join([value for name, value in headers if name not in _NOT_READ])
    beside = b"\n".join((rest, unquote_to_bytes(query), path.encode()))
    if _may_have_number(beside):
        _check_beside(path, query, rest)
    if _may_have_number(body) and _may_have_card(_PLAIN_NUMBER.sub(b"", body)):
        for where, text in _texts(body):
            if _has_card(text):
                raise CardNumberUnexpected(param=where)


def _check_beside(path: str, query: bytes, rest: bytes) -> None:
    if _has_card(unquote(path)):
        raise CardNumberUnexpected(param="path")
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if _has_card(value) or _has_card(name):
            raise CardNumberUnexpected(param="query")
    if _has_card(rest.decode("latin-1")):
        raise CardNumberUnexpected(param="header")


def _may_have_code(body: bytes) -> bool:
    """Whether a field may be called like a security code: quick, for every request passes here."""
    low = body.lower()
    return b"cv" in low or b"cs" in low or b"cid" in low or b"secur" in low or b"verif" in low


def _may_have_number(raw: bytes) -> bool:
    """Whether so many digits stand together, or in groups, that a card number may be there."""
    return _ENOUGH_DIGITS in raw.translate(_AS_ZEROS, b" -") or b"\\u00" in raw


def _may_have_card(raw: bytes) -> bool:
    return _may_have_number(raw) and (b"\\u00" in raw or _has_card(raw.decode("latin-1")))


def in_text(text: str, where: str, row: str) -> Iterator[Spot]:
    """Yield the card data in a text."""
    return (Spot(where, row, each.kind, each.shown) for each in sights(text))


def scan_file(path: Path) -> Iterator[Spot]:
    """Yield the card data in a file, as a log, line by line; what is no text is read as Latin-1."""
    with path.open(encoding="latin-1", newline="\n") as file:
        number = 0
        while line := file.readline(_LINE_MAX):
            number += 1
            yield from in_text(line, path.name, str(number))


async def scan(
    db: Db, *, files: Sequence[Path] = (), schemas: Sequence[str] = ("public",)
) -> AsyncIterator[Spot]:
    """Yield the card data in the texts of all tables of the schemas, and in files.

    The vault's own schema is not named: what it has is sealed. Rows are counted as they lie.
    """
    for schema in schemas:
        for column in await _COLUMNS.all(db, schema):
            found = await db.fetch(column.sql, ())
            for row in found:
                for spot in in_text(row[1], column.place, str(row[0])):
                    yield spot
    for path in files:
        for spot in scan_file(path):
            yield spot


class _Column(Struct, frozen=True):
    """A column that has texts, and the statement that finds those with enough digits in a row."""

    place: str
    sql: str


# The names come from the catalogue and are quoted by it. The form is wider than `sights`, which
# decides.
_COLUMNS: Final = Query(
    _Column,
    """
    select c.relname || '.' || a.attname as place,
           format('select t.ctid::text, t.%1$I::text from %2$I.%3$I t where t.%1$I::text ~ %4$L',
                  a.attname, n.nspname, c.relname, '[0-9]([ -]?[0-9]){12}') as sql
      from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
      join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
     where n.nspname = $1 and c.relkind = 'r'
       and a.atttypid in ('text'::regtype, 'jsonb'::regtype, 'varchar'::regtype,
                          'text[]'::regtype, 'json'::regtype)
     order by 1""",
)


def _has_card(text: str) -> bool:
    return next(sights(text), None) is not None


def _texts(body: bytes) -> Iterator[tuple[str, str]]:
    """Yield each text and whole number of a JSON document outside the fields made for numbers."""
    try:
        document: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        yield "$", body.decode("latin-1")
        return
    waiting: list[tuple[str, object]] = [("$", document)]
    while waiting:
        where, value = waiting.pop()
        match value:
            case dict():
                waiting += [
                    (f"{where}.{str(name)[:32]}" if not _has_card(str(name)) else where, inside)
                    for name, inside in value.items()
                    if name not in MADE_FOR_NUMBERS
                ]
                yield where, " | ".join(str(name) for name in value)
            case list():
                waiting += [(where, inside) for inside in value]
            case str() | int():
                yield where, str(value)
            case _:
                continue
