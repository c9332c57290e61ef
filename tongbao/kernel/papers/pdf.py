"""Pages of text as PDF (ISO 32000-1), Chinese and Latin, the same bytes at every time.

Chinese is shown in STSong-Light by Adobe's character collection GB1 (ISO 32000-1 §9.7.5.2): the
font is not in the file, every reader for China brings one for it. Latin letters and figures are in
Courier, whose letters are all 0.6 of its size wide, so what is set to the right ends where it
should whichever font a reader takes for the other.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

from msgspec import Struct

WIDTH: Final = 595
"""A4 upright, in points of 1/72 inch."""
HEIGHT: Final = 842
MARGIN: Final = 48
_LEADING: Final = 1.5
_BELOW_RULE: Final = 0.5
_INSTEAD: Final = {ord("•"): "*"}
"""What masks an account has no place in the fonts of the collection."""
_COURIER: Final = 0.6


class Text(Struct, frozen=True):
    """A piece of a line: where it begins, or where it ends for figures set to the right."""

    x: int
    text: str
    ends_there: bool = False


class Line(Struct, frozen=True):
    """A line of pieces in one size; ``rule`` draws a thin line below it."""

    texts: tuple[Text, ...] = ()
    size: int = 9
    rule: bool = False


def write_pdf(lines: Iterable[Line], *, title: str) -> bytes:
    """Return the lines as pages, each with the title's page number at its foot."""
    pages = _paged(lines)
    objects: list[bytes] = [b"", b"", *_FONTS]
    kids = []
    for number, page in enumerate(pages, 1):
        foot = Line((Text(MARGIN, f"{title}  {number}/{len(pages)}"),), 7)
        content = zlib.compress(_content([*page, (HEIGHT - MARGIN // 2, foot)]), 9)
        objects.append(
            b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream"
            % (len(content), content)
        )
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R /F2 4 0 R >> >> >>" % (WIDTH, HEIGHT, len(objects))
        )
        kids.append(len(objects))
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    shown = b" ".join(b"%d 0 R" % kid for kid in kids)
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), shown)
    return _file(objects)


_FONTS: Final = (
    (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /STSong-Light-UniGB-UCS2-H"
        b" /Encoding /UniGB-UCS2-H /DescendantFonts [5 0 R] >>"
    ),
    b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier >>",
    (
        b"<< /Type /Font /Subtype /CIDFontType0 /BaseFont /STSong-Light /DW 1000 /W [1 95 500]"
        b" /CIDSystemInfo << /Registry (Adobe) /Ordering (GB1) /Supplement 4 >>"
        b" /FontDescriptor 6 0 R >>"
    ),
    (
        b"<< /Type /FontDescriptor /FontName /STSong-Light /Flags 6"
        b" /FontBBox [-25 -254 1000 880] /ItalicAngle 0 /Ascent 880 /Descent -120"
        b" /CapHeight 880 /StemV 93 >>"
    ),
)
"""Objects 3 to 6. Widths and box are those Adobe gives for its font of this name."""

_Placed = tuple[float, Line]


def _paged(lines: Iterable[Line]) -> list[list[_Placed]]:
    pages: list[list[_Placed]] = [[]]
    y = float(MARGIN)
    for line in lines:
        y += line.size * _LEADING
        if y > HEIGHT - MARGIN:
            pages.append([])
            y = MARGIN + line.size * _LEADING
        pages[-1].append((y, line))
        if line.rule:
            y += line.size * _BELOW_RULE
    return pages


def _content(placed: Sequence[_Placed]) -> bytes:
    parts: list[str] = []
    for y, line in placed:
        for text in line.texts:
            runs = [
                (is_latin, "".join(run))
                for is_latin, run in groupby(text.text.translate(_INSTEAD), _is_latin)
            ]
            widths = [len(run) * line.size * (_COURIER if latin else 1) for latin, run in runs]
            x = text.x - sum(widths) if text.ends_there else float(text.x)
            for (is_latin, run), width in zip(runs, widths, strict=True):
                font, shown = ("F2", _latin(run)) if is_latin else ("F1", _chinese(run))
                parts.append(f"BT /{font} {line.size} Tf {x:.1f} {HEIGHT - y:.1f} Td {shown} Tj ET")
                x += width
        if line.rule:
            at = HEIGHT - y - line.size * 0.4
            parts.append(f"0.5 w {MARGIN} {at:.1f} m {WIDTH - MARGIN} {at:.1f} l S")
    return "\n".join(parts).encode("ascii")


def _is_latin(letter: str) -> bool:
    return letter.isascii() and letter.isprintable()


def _latin(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
    return f"({escaped})"


def _chinese(text: str) -> str:
    """Return text as the encoding has it; what it does not have, or is no letter, is a box."""
    shown = "".join(
        letter if letter.isprintable() and ord(letter) < 0x10000 else "\u25a1" for letter in text
    )
    return f"<{shown.encode('utf-16-be').hex()}>"


def _file(objects: Sequence[bytes]) -> bytes:
    kept = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, each in enumerate(objects, 1):
        places.append(len(kept))
        kept += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    begins = len(kept)
    kept += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for place in places:
        kept += b"%010d 00000 n \n" % place
    kept += b"trailer\n<< /Size %d /Root 1 0 R >>\n" % (len(objects) + 1)
    kept += b"startxref\n%d\n%%%%EOF\n" % begins
    return bytes(kept)
