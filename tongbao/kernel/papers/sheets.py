"""Tables for spreadsheets: CSV and XLSX whose cells are text or amounts, never formulas.

A cell that a spreadsheet would calculate is a way into the computer of whoever opens it: in CSV
such text begins with an apostrophe, and in XLSX text is typed as text. The same table gives the
same bytes at every time, so its digest can be checked later.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from io import BytesIO
from typing import Final
from xml.sax.saxutils import escape

Cell = str | int | Decimal
"""What a cell holds: text, a count, or an amount in major units."""

ROWS_MAX: Final = 1_048_576
"""More than this a worksheet does not have (ECMA-376 leaves it to the program: Excel's limit)."""
_RISKY: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)
_HEAD: Final = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAIN: Final = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_PACKAGE: Final = "http://schemas.openxmlformats.org/package/2006"
_OFFICE: Final = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_TYPE: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_FIXED: Final = {
    "[Content_Types].xml": (
        f'<Types xmlns="{_PACKAGE}/content-types">'
        '<Default Extension="rels"'
        ' ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_TYPE}.worksheet+xml"/>'
        f'<Override PartName="/xl/styles.xml" ContentType="{_TYPE}.styles+xml"/></Types>'
    ),
    "_rels/.rels": (
        f'<Relationships xmlns="{_PACKAGE}/relationships">'
        f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/>'
        "</Relationships>"
    ),
    "xl/workbook.xml": (
        f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>'
        '<sheet name="statement" sheetId="1" r:id="rId1"/></sheets></workbook>'
    ),
    "xl/_rels/workbook.xml.rels": (
        f'<Relationships xmlns="{_PACKAGE}/relationships">'
        f'<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/>'
        f'<Relationship Id="rId2" Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>'
    ),
    "xl/styles.xml": (
        f'<styleSheet xmlns="{_MAIN}"><fonts count="1"><font/></fonts><fills count="1"><fill/>'
        '</fills><borders count="1"><border/></borders><cellStyleXfs count="1"><xf/>'
        '</cellStyleXfs><cellXfs count="2"><xf/><xf numFmtId="4" applyNumberFormat="1"/>'
        "</cellXfs></styleSheet>"
    ),
}
"""The parts of a workbook that are always the same (ECMA-376 part 1, §18); format 4 is #,##0.00."""


def csv_line(cells: Iterable[Cell]) -> str:
    """Return one line of CSV (RFC 4180), with text that looks like a formula made text."""
    return ",".join(_quoted(_harmless(cell)) for cell in cells) + "\r\n"


def _harmless(cell: Cell) -> str:
    if not isinstance(cell, str):
        return f"{cell:f}" if isinstance(cell, Decimal) else str(cell)
    return f"'{cell}" if cell.lstrip(" ").startswith(_RISKY) else cell


def _quoted(text: str) -> str:
    if any(letter in text for letter in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def write_xlsx(rows: Iterable[Sequence[Cell]]) -> bytes:
    """Return a workbook of one sheet; text stays text, whatever it looks like.

    Raises:
        ValueError: there are more rows than a worksheet has.
    """
    kept = BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _FIXED.items():
            archive.writestr(_part(name), _HEAD + text)
        archive.writestr(_part("xl/worksheets/sheet1.xml"), "".join(_sheet(rows)))
    return kept.getvalue()


def _part(name: str) -> zipfile.ZipInfo:
    part = zipfile.ZipInfo(name, _LONG_AGO)
    part.compress_type = zipfile.ZIP_DEFLATED
    return part


def _sheet(rows: Iterable[Sequence[Cell]]) -> Iterator[str]:
    yield f'{_HEAD}<worksheet xmlns="{_MAIN}"><sheetData>'
    for number, row in enumerate(rows, 1):
        if number > ROWS_MAX:
            raise ValueError("more rows than a worksheet has")
        yield f'<row r="{number}">{"".join(map(_cell, row))}</row>'
    yield "</sheetData></worksheet>"


def _cell(cell: Cell) -> str:
    if isinstance(cell, Decimal):
        return f'<c s="1"><v>{cell:f}</v></c>'
    if isinstance(cell, int):
        return f"<c><v>{cell}</v></c>"
    text = escape("".join(letter for letter in cell if letter >= " " or letter in "\t\n"))
    return f'<c t="inlineStr"><is><t xml:space="preserve">{text}</t></is></c>'
