"""Documents: XML row by row without entities, and the sheets of XLSX, inside hard limits."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import IO, Any, Final
from xml.parsers import expat

from tongbao.clearing.sources.cells import CellMalformed, fault, minor_units, row_of
from tongbao.clearing.sources.model import Layout, SourceLine, SourceTotal

CHUNK: Final = 256 * 1024
_KIND: Final = "Tp/CdOrPrtry/Cd"
DEPTH_MAX: Final = 40
TEXT_MAX: Final = 64 * 1024
CELLS_MAX: Final = 2000
RATIO_MAX: Final = 200
SHARED_MAX: Final = 2_000_000
UNPACKED_MAX: Final = 2 * 1024**3
_CELL: Final = re.compile(r"([A-Z]{1,3})(\d{1,7})")
_PACKINGS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)


class DocumentRefused(Exception):
    """The document is damaged, hostile or absurdly large."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class _Walk:
    """Follows a document: the texts below each row's element, and of the elements asked for."""

    def __init__(self, row: str, watched: frozenset[str] = frozenset()) -> None:
        self.done: deque[tuple[str, int, dict[str, str]]] = deque()
        self._row = row.split("/")
        self._watched = {path: path.split("/") for path in watched}
        self._path: list[str] = []
        self._inside: list[tuple[str, int, dict[str, str]]] = []
        self._text: list[str] = []
        self._size = 0
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._take
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse

    def _refuse(self, *_: Any) -> None:
        raise DocumentRefused("source.document_type")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._path.append(tag.rpartition(" ")[2])
        if len(self._path) > DEPTH_MAX:
            raise DocumentRefused("source.too_deep")
        self._text, self._size = [], 0
        for name, path in (("", self._row), *self._watched.items()):
            if self._path[-len(path) :] == path:
                self._inside.append((name, len(self._path), {}))
        for _, depth, cells in self._inside:
            below = "/".join(self._path[depth:])
            for name, value in attributes.items():
                self._put(cells, f"{below}@{name.rpartition(' ')[2]}", value)

    def _take(self, text: str) -> None:
        self._size += len(text)
        if self._size > TEXT_MAX:
            raise DocumentRefused("source.text_too_long")
        self._text.append(text)

    def _end(self, _tag: str) -> None:
        text = "".join(self._text).strip()
        self._text, self._size = [], 0
        for _, depth, cells in self._inside:
            if text:
                self._put(cells, "/".join(self._path[depth:]), text)
        while self._inside and self._inside[-1][1] == len(self._path):
            name, _, cells = self._inside.pop()
            self.done.append((name, self.parser.CurrentLineNumber, cells))
        self._path.pop()

    def _put(self, cells: dict[str, str], place: str, value: str) -> None:
        if len(cells) >= CELLS_MAX:
            raise DocumentRefused("source.too_many_cells")
        cells.setdefault(place, value)  # the first of several, as a bank's detail lines repeat


def _elements(
    file: IO[bytes], row: str, watched: frozenset[str] = frozenset()
) -> Iterator[tuple[str, int, dict[str, str]]]:
    walk = _Walk(row, watched)
    try:
        while piece := file.read(CHUNK):
            walk.parser.Parse(piece, False)
            yield from _drain(walk)
        walk.parser.Parse(b"", True)
    except expat.ExpatError:
        yield from _drain(walk)
        raise DocumentRefused("source.truncated") from None
    yield from _drain(walk)


def _drain(walk: _Walk) -> Iterator[tuple[str, int, dict[str, str]]]:
    while walk.done:
        yield walk.done.popleft()


# XML


def read_xml(layout: Layout, file: IO[bytes]) -> Iterator[SourceLine]:
    """Yield the rows of a document, and the balances of a bank's statement (camt.05x) as totals."""
    balances: dict[str, int] = {}
    closed: dict[str, str] = {}
    watched = frozenset({"Stmt/Bal", "Stmt"}) if layout.row.startswith("Stmt/") else frozenset()
    line = 0
    try:
        for name, line, cells in _elements(file, layout.row, watched):
            if name == "Stmt/Bal":
                _note_balance(balances, cells)
                if cells.get(_KIND) == "CLBD":
                    closed = cells
            elif name == "Stmt":
                # The rows of a statement may stand before or after its balances.
                opening = balances.get("OPBD", balances.get("PRCD"))
                yield SourceTotal(
                    line,
                    opening=opening,
                    closing=balances.get("CLBD"),
                    account=cells.get("Acct/Id/IBAN") or cells.get("Acct/Id/Othr/Id", ""),
                    currency=closed.get("Amt@Ccy", ""),
                    day=_day(closed.get("Dt/Dt") or closed.get("Dt/DtTm", "")),
                )
                balances, closed = {}, {}
            else:
                yield from _document_row(layout, line, cells)
    except DocumentRefused as refused:
        yield fault(line, refused.code, "")
        return
    if not watched:
        yield SourceTotal(line)  # it was read to the end of its element


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        return None


def _note_balance(balances: dict[str, int], cells: dict[str, str]) -> None:
    kind = cells.get(_KIND, "")
    try:
        amount = minor_units(cells.get("Amt", ""), 2)
    except CellMalformed:
        return
    balances.setdefault(kind, -amount if cells.get("CdtDbtInd") == "DBIT" else amount)


def _document_row(layout: Layout, line: int, cells: dict[str, str]) -> Iterator[SourceLine]:
    try:
        row = row_of(layout, line, cells)
    except CellMalformed as malformed:
        yield fault(line, malformed.code, " ".join(cells.values()))
        return
    if row is not None:
        yield row


# XLSX


def read_xlsx(layout: Layout, path: Path) -> Iterator[SourceLine]:
    """Yield the rows of a sheet. Formulas are not computed: what the file says they gave counts."""
    line = 0
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive)
            shared = _shared(archive)
            names: tuple[str, ...] | None = layout.names or None
            with archive.open(_sheet_path(archive, layout.sheet)) as sheet:
                for line, values in _sheet_rows(sheet, shared):
                    if names is None:
                        if values and values[0].startswith(layout.header):
                            names = tuple(value.strip() for value in values)
                        continue
                    if any(values) and not _is_comment(layout, values):
                        cells = dict(zip(names, [*values, *[""] * len(names)], strict=False))
                        yield from _document_row(layout, line, cells)
    except DocumentRefused as refused:
        yield fault(line, refused.code, "")
        return
    except _DAMAGE:
        yield fault(line, "source.archive_damaged", "")
        return
    yield SourceTotal(line) if names else fault(line, "source.header_missing", "")


def check_archive(archive: zipfile.ZipFile, unpacked_max: int = UNPACKED_MAX) -> None:
    """Raise when an archive unpacks to what no statement is.

    Raises:
        DocumentRefused
    """
    members = archive.infolist()
    total = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if len(members) > CELLS_MAX or total > unpacked_max or total > RATIO_MAX * max(packed, CHUNK):
        raise DocumentRefused("source.archive_bomb")
    if any(member.compress_type not in _PACKINGS or member.flag_bits & 1 for member in members):
        raise DocumentRefused("source.archive_unreadable")


def _is_comment(layout: Layout, values: list[str]) -> bool:
    return bool(layout.comment) and values[0].startswith(layout.comment)


def _shared(archive: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    texts = []
    with archive.open("xl/sharedStrings.xml") as file:
        for _, _, cells in _elements(file, "si"):
            texts.append(cells.get("t") or "".join(cells.values()))
            if len(texts) > SHARED_MAX:
                raise DocumentRefused("source.too_many_cells")
    return texts


def _sheet_path(archive: zipfile.ZipFile, wanted: str) -> str:
    with archive.open("xl/workbook.xml") as file:
        sheets = [cells.get("@name", "") for _, _, cells in _elements(file, "sheets/sheet")]
    place = sheets.index(wanted) + 1 if wanted in sheets else 1
    if wanted and wanted not in sheets:
        raise DocumentRefused("source.sheet_missing")
    return f"xl/worksheets/sheet{place}.xml"


def _sheet_rows(file: IO[bytes], shared: list[str]) -> Iterator[tuple[int, list[str]]]:
    number, values = 0, dict[int, str]()
    for _, _, cells in _elements(file, "row/c"):
        place = _CELL.fullmatch(cells.get("@r", ""))
        if place is None:
            raise DocumentRefused("source.cell_without_place")
        if int(place[2]) != number:
            if values:
                yield number, _in_order(values)
            number, values = int(place[2]), {}
        values[_column(place[1])] = _cell_text(cells, shared)
    if values:
        yield number, _in_order(values)


def _in_order(values: dict[int, str]) -> list[str]:
    return [values.get(place, "") for place in range(max(values) + 1)]


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("A") + 1
    if number > CELLS_MAX:
        raise DocumentRefused("source.too_many_cells")
    return number - 1


def _cell_text(cells: dict[str, str], shared: list[str]) -> str:
    if cells.get("@t") == "s":
        place = cells.get("v", "")
        if not place.isdecimal() or int(place) >= len(shared):
            raise DocumentRefused("source.cell_without_text")
        return shared[int(place)]
    return cells.get("v") or cells.get("is/t") or ""
