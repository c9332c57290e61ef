"""Qra's signatures and documents: MD5 with a shared key, over the fields of a flat XML.

MD5 is here because the protocol has nothing better (``sign_type`` MD5), and nowhere else. As it is
keyed at the end of the text, what forges it is a collision under an unknown key; the transport's
TLS, the comparison with what was asked and the query are what is relied on beside it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final
from xml.parsers import expat
from xml.sax.saxutils import escape

FIELDS_MAX: Final = 200

_ROOT: Final = "xml"
_END: Final = b"</xml>"


class DocumentMalformed(ValueError):
    """The bytes are no flat XML document of fields."""


def signed(key: str, fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields with their signature."""
    return {**fields, "sign": _signature(key, fields)}


def is_authentic(key: str, fields: Mapping[str, str]) -> bool:
    """Whether the other side, or we ourselves, signed these fields with the key."""
    given = fields.get("sign", "").upper().encode()
    return hmac.compare_digest(_signature(key, fields).encode(), given)


def written(fields: Mapping[str, str]) -> bytes:
    """Return fields as a document."""
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
    return f"<{_ROOT}>{inner}</{_ROOT}>".encode()


def read(body: bytes) -> dict[str, str]:
    """Return a document's fields. One given twice could be read in two ways, so it is refused.

    A document type is refused before anything in it is read: where no entity is declared, none
    can be expanded. After the document stands at most the end of its line.

    Raises:
        DocumentMalformed
    """
    if not body.removesuffix(b"\n").removesuffix(b"\r").endswith(_END):
        raise DocumentMalformed("it does not end as a document does")
    reader = _Reader()
    parser = expat.ParserCreate(encoding="utf-8")
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.refuse
    try:
        parser.Parse(body, True)
    except expat.ExpatError as fault:
        raise DocumentMalformed(f"line {fault.lineno}: not XML") from None
    return reader.fields


class _Reader:
    """Collects the children of the root; anything deeper is no field."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self._path: list[str] = []
        self._pieces: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Open an element."""
        del attributes
        self._path.append(name)
        self._pieces = []
        is_field = len(self._path) == 2 and name not in self.fields
        if len(self._path) > 1 and not is_field:
            raise DocumentMalformed("nested, or a field given twice")
        if self._path[0] != _ROOT or len(self.fields) >= FIELDS_MAX:
            raise DocumentMalformed("no list of fields")

    def end(self, name: str) -> None:
        """Close an element; a field's text is its value."""
        self._path.pop()
        if self._path:
            self.fields[name] = "".join(self._pieces)

    def text(self, piece: str) -> None:
        """Take a piece of text."""
        self._pieces.append(piece)

    def refuse(self, *_: object) -> None:
        """Refuse a document type."""
        raise DocumentMalformed("a document type is declared")


def _signature(key: str, fields: Mapping[str, str]) -> str:
    named = sorted(name for name, value in fields.items() if value and name != "sign")
    text = "&".join(f"{name}={fields[name]}" for name in named)
    return hashlib.md5(f"{text}&key={key}".encode()).hexdigest().upper()  # noqa: S324 - their protocol
