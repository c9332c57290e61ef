"""Watch for card data where it does not belong: in requests, in tables, in files.

A request to the API that carries a card number or a track outside the few fields made for one is
refused before it is authenticated, logged or kept, and one with a security code always is: PCI DSS
4.0.1 requirements 3.3.1 and 3.4.1, 银发〔2017〕45号. The refusal names the field and repeats
nothing. Notices of channels cannot be refused; `infra.telemetry` masks what is logged of anything.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

import msgspec
from msgspec import Struct

from tongbao.infra.db import Db, Query
from tongbao.kernel.card_numbers import WRAPPED, folded, is_code_name, says_code, sights
from tongbao.kernel.errors import Invalid

MADE_FOR_NUMBERS: Final = frozenset(
    {"number", "account", "account_number", "card_number", "bank_account", "auth_code", "track2"}
    | {"csv", "content", "id_number", "bank_number", "chip_hex", "pin_block_hex", "cryptogram"}
)
"""Fields in which a card's or an account's number may stand, wherever they are in a request."""
FREE: Final = frozenset({"metadata", "terms"})
"""Fields in which a merchant names things as it likes: there no name makes room for a number."""
# A field made for numbers with digits and no more, as a till sends the code it has scanned. Not one
# whose name only ends like it: within a text or a name, the quote before it is escaped.
_PLAIN_NUMBER: Final = re.compile(
    rb'(?<!\\)"(?:%b)"\s{0,8}:\s{0,8}"[0-9 -]{0,40}"' % "|".join(sorted(MADE_FOR_NUMBERS)).encode()
)
_FREE_FIELD: Final = tuple(f'"{name}"'.encode() for name in FREE)
_AS_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_ENOUGH_DIGITS: Final = b"0" * 13
_CODE_IN_CHINESE: Final = "安全码".encode()
_WRAPPED: Final = re.compile(WRAPPED.encode())
# What of UTF-8 is no ASCII: Chinese characters begin with E4 to E9, and signs that are no digits
# stand for them where only digits are looked for.
_ORDINARY: Final = bytes([*range(0xC0), *range(0xE4, 0xEA)])
_AS_SIGNS: Final = bytes([*range(0x80), *[ord("~")] * 0x80])
_WIDE: Final = re.compile(rb"\xef(?:\xbc[\x90-\x99\xa1-\xba]|\xbd[\x81-\x9a])")
_WIDE_GAP: Final = re.compile(
    rb"[0-9](?:\xc2[\xa0\xad\xb7]|\xe1|\xe2[\x80\x81\x88]|\xe3\x80\x80|\xef)"
)
_OTHER_SCRIPT: Final = re.compile(rb"[\xd9\xdb\xdf\xe0\xe1\xea]|\xf0(?!\x9f)")
# Nothing keeps them: proofs, and ids of traces, of whose 16 hex figures all may be digits.
_NOT_READ: Final = frozenset(
    {b"authorization", b"signature", b"signature-input", b"content-digest", b"cookie", b"dpop"}
    | {b"traceparent", b"tracestate", b"b3", b"x-b3-traceid", b"x-b3-spanid"}
    | {b"x-b3-parentspanid", b"x-request-id"}
)
_SHOWN_MAX: Final = 32
_LINE_MAX: Final = 1 << 20
_JSON_BEGINS: Final = (b"{", b"[", b"")
_GZIP_MAGIC: Final = b"\x1f\x8b"


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
    rest = b"\n".join([value for name, value in headers if name not in _NOT_READ])
    if _is_suspect(b"\n".join((rest, _unquoted(query), path.encode()))):
        _check_beside(path, query, rest)
    is_json = body[:1] in _JSON_BEGINS
    if _is_suspect_within(body) if is_json else _is_suspect(_unquoted(body)):
        for where, text, is_for_numbers in _texts(body):
            _check_text(where, text, is_for_numbers=is_for_numbers)


def check_form(fields: Mapping[str, str]) -> None:
    """Raise where the fields of a form or of an address carry card data that they must not.

    Raises:
        CardNumberUnexpected, SecurityCodeNotTaken
    """
    for name, value in fields.items():
        if is_code_name(name) and value:
            raise SecurityCodeNotTaken
        shown = name[:_SHOWN_MAX] if not _has_card(name) else "form"
        _check_text(shown, value, is_for_numbers=name in MADE_FOR_NUMBERS)


def _check_beside(path: str, query: bytes, rest: bytes) -> None:
    _check_text("path", unquote(path), is_for_numbers=False)
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if is_code_name(name) and value:
            raise SecurityCodeNotTaken
        _check_text("query", f"{name} = {value}", is_for_numbers=False)
    _check_text("header", rest.decode(errors="replace"), is_for_numbers=False)


def _check_text(where: str, text: str, *, is_for_numbers: bool) -> None:
    if says_code(text):
        raise SecurityCodeNotTaken
    if not is_for_numbers and _has_card(text):
        raise CardNumberUnexpected(param=where)


def _unquoted(form: bytes) -> bytes:
    return unquote_to_bytes(form.replace(b"+", b" "))


def _is_suspect(raw: bytes) -> bool:
    """Whether card data may be in it: quick, for every request passes here."""
    return (
        _ENOUGH_DIGITS in raw.translate(_AS_ZEROS, b" ./_-")
        or _names_code(raw)
        or b"\\" in raw
        or _WRAPPED.search(raw) is not None
        or _is_foreign(raw)
    )


def _is_suspect_within(body: bytes) -> bool:
    """Whether it may be in JSON, whatever is escaped for no reason and leaving out what is for it.

    Chinese in JSON is often escaped, and tills send the codes that they have scanned.
    """
    if not _is_suspect(body):
        return False
    if b"\\" in body:
        try:
            body = msgspec.json.encode(msgspec.json.decode(body))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return True
        if b"\\" in body or not _is_suspect(body):
            return b"\\" in body
    if not any(name in body for name in _FREE_FIELD):
        body = _PLAIN_NUMBER.sub(b"", body)
        if not _is_suspect(body):
            return False
    return _names_code(body) or _is_foreign(body) or _has_card(body.translate(_AS_SIGNS).decode())


def _names_code(raw: bytes) -> bool:
    low = raw.lower()
    return (
        b"cv" in low
        or b"csc" in low
        or b"cav" in low
        or b"cid" in low
        or b"secur" in low
        or b"verif" in low
        or _CODE_IN_CHINESE in raw
    )


def _is_foreign(raw: bytes) -> bool:
    """Whether digits, or what stands between digits, may be of another script than ASCII."""
    if raw.isascii() or not raw.translate(None, _ORDINARY):
        return False
    return any(form.search(raw) for form in (_WIDE, _WIDE_GAP, _OTHER_SCRIPT))


def in_text(text: str, where: str, row: str) -> Iterator[Spot]:
    """Yield the card data in a text; of a security code nothing is shown."""
    yield from (Spot(where, row, each.kind, each.shown) for each in sights(text))
    if says_code(text):
        yield Spot(where, row, "code", "***")


def without_cards(raw: bytes) -> bytes:
    """Return what somebody sent with its card numbers masked; what has none comes back as it is."""
    text = folded(raw.decode(errors="surrogateescape"))
    found = sorted(sights(text), key=lambda sight: sight.start, reverse=True)
    for each in found:
        text = text[: each.start] + each.shown + text[each.end :]
    return text.encode(errors="surrogateescape") if found else raw


def scan_file(path: Path) -> Iterator[Spot]:
    """Yield the card data in a file, as a log, line by line; one that gzip packed is unpacked."""
    with path.open("rb") as raw:
        is_packed = raw.read(2) == _GZIP_MAGIC
    opened = gzip.open if is_packed else open
    with opened(path, "rt", encoding="utf-8", errors="replace", newline="\n") as file:
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
        for column in await _COLUMNS.all(db, schema, _FORM):
            last = "(0,0)"
            while found := await db.fetch(column.sql, (last,)):
                for row in found:
                    for spot in in_text(row[1], column.place, str(row[0])):
                        yield spot
                last = str(found[-1][0])
    for path in files:
        for spot in scan_file(path):
            yield spot


class _Column(Struct, frozen=True):
    """A column that has texts, and the statement that finds those that may have card data."""

    place: str
    sql: str


# Wider than what decides: so many digits, in groups or not, or in Base64, or a code's name.
_FORM: Final = (
    "[0-9٠-٩０-９]([ ./_\u00a0\u200b-\u2015\u2060\u3000-]{0,3}[0-9٠-٩０-９]){12}"
    f"|{WRAPPED}|[cC][vV][cnvCNV]2?[^0-9A-Za-z]{{0,6}}[0-9]{{3}}|安全码"
)
# The names come from the catalogue and are quoted by it. Of what is kept byte for byte, what was
# sent and answered is looked at; the rest is sealed, or digests.
_COLUMNS: Final = Query(
    _Column,
    """
    select c.relname || '.' || a.attname as place,
           format('select t.ctid::text, %1$s from %2$I.%3$I t'
                  ' where t.ctid > $1::text::tid and %1$s ~ %4$L order by t.ctid limit 500',
                  case when a.atttypid = 'bytea'::regtype
                       then format('encode(t.%I, ''escape'')', a.attname)
                       else format('t.%I::text', a.attname) end,
                  n.nspname, c.relname, $2::text) as sql
      from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
      join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
     where n.nspname = $1 and c.relkind = 'r'
       and (a.atttypid in ('text'::regtype, 'jsonb'::regtype, 'varchar'::regtype,
                           'text[]'::regtype, 'json'::regtype)
            or a.atttypid = 'bytea'::regtype and a.attname in ('body', 'response'))
     order by 1""",
)


def _has_card(text: str) -> bool:
    return next(sights(text), None) is not None


def _texts(body: bytes) -> Iterator[tuple[str, str, bool]]:
    """Yield each text and whole number of a body, where it stands, and if it may be a card's.

    A text that is a JSON document itself is opened, and no name in it makes room for a number.

    Raises:
        SecurityCodeNotTaken
    """
    try:
        document: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        yield from _form_texts(body)
        return
    waiting: list[tuple[str, object, bool, bool]] = [("$", document, False, False)]
    while waiting:
        where, value, is_free, is_for_numbers = waiting.pop()
        match value:
            case dict():
                for name, inside in value.items():
                    if is_code_name(str(name)) and inside is not None:
                        raise SecurityCodeNotTaken
                    below = f"{where}.{str(name)[:_SHOWN_MAX]}"
                    below = where if _has_card(str(name)) else below
                    free = is_free or name in FREE
                    made = (is_for_numbers or name in MADE_FOR_NUMBERS) and not free
                    waiting.append((below, inside, free, made))
                yield where, " | ".join(str(name) for name in value), False
            case list():
                waiting += [(where, inside, is_free, is_for_numbers) for inside in value]
            case str() | int():
                yield where, str(value), is_for_numbers
                if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
                    waiting += [(where, each, True, False) for each in _document_in(value)]
            case _:
                continue


def _form_texts(body: bytes) -> Iterator[tuple[str, str, bool]]:
    text = body.decode(errors="replace")
    yield "$", text, False
    if "=" in text:
        for name, value in parse_qsl(text, keep_blank_values=True):
            if is_code_name(name) and value:
                raise SecurityCodeNotTaken
            yield "$", f"{name} = {value}", False


def _document_in(text: str) -> list[object]:
    try:
        return [msgspec.json.decode(text)]
    except (msgspec.DecodeError, ValueError, RecursionError):
        return []
