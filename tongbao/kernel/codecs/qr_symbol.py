"""QR Code symbols (ISO/IEC 18004): a text in UTF-8 becomes black and white modules.

Byte mode and error correction level M only, which is what a phone reads off a screen or a counter:
15 % of the symbol may be covered. Every size from version 1 to 40, the mask with the least penalty.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from typing import Final

from tongbao.kernel.errors import Rejected

Modules = tuple[tuple[bool, ...], ...]
"""Rows of modules from the top left; True is dark. The quiet zone around it is the drawer's."""

QUIET_ZONE: Final = 4
"""Modules of white that must stay around a symbol (ISO/IEC 18004 §6.3.8)."""

# Level M, by version: error correction bytes of each block, and how many blocks (table 9).
_CHECK_BYTES: Final = (
    10, 16, 26, 18, 24, 16, 18, 22, 22, 26, 30, 22, 22, 24, 24, 28, 28, 26, 26, 26,
    26, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28,
)  # fmt: skip
_BLOCKS: Final = (
    1, 1, 1, 2, 2, 4, 4, 4, 5, 5, 5, 8, 9, 9, 10, 10, 11, 13, 14, 16,
    17, 17, 18, 20, 21, 23, 25, 26, 28, 29, 31, 33, 35, 37, 38, 40, 43, 45, 47, 49,
)  # fmt: skip
_LEVEL_M: Final = 0b00
_BYTE_MODE: Final = 0b0100
_FINDER_LIKE: Final = (True, False, True, True, True, False, True)
_MASKS: Final[tuple[Callable[[int, int], bool], ...]] = (
    lambda row, column: (row + column) % 2 == 0,
    lambda row, _column: row % 2 == 0,
    lambda _row, column: column % 3 == 0,
    lambda row, column: (row + column) % 3 == 0,
    lambda row, column: (row // 2 + column // 3) % 2 == 0,
    lambda row, column: row * column % 2 + row * column % 3 == 0,
    lambda row, column: (row * column % 2 + row * column % 3) % 2 == 0,
    lambda row, column: ((row + column) % 2 + row * column % 3) % 2 == 0,
)


class QrTextTooLong(Rejected):
    """No QR symbol holds a text this long."""

    code = "qr_symbol.too_long"
    advice = "Shorten the text to at most 2,331 bytes."
    advice_zh = "二维码内容过长，请缩短至 2331 字节以内。"


def draw(text: str) -> Modules:
    """Return the smallest symbol that holds a text.

    Raises:
        QrTextTooLong
    """
    content = text.encode()
    version = _version_for(len(content))
    codewords = _with_check_bytes(version, _data(version, content))
    blank, free = _patterns(version)
    filled = _placed(blank, free, codewords)
    tried = [_masked(filled, free, number) for number in range(len(_MASKS))]
    best = min(tried, key=_penalty)
    return tuple(tuple(row) for row in best)


def path(modules: Modules) -> str:
    """Return the dark modules as one SVG path, a unit for a module, quiet zone included."""
    strokes = []
    for y, row in enumerate(modules, QUIET_ZONE):
        x = 0
        while x < len(row):
            width = 0
            while x + width < len(row) and row[x + width]:
                width += 1
            if width:
                strokes.append(f"M{x + QUIET_ZONE},{y}h{width}v1h-{width}z")
            x += width + 1
    return "".join(strokes)


def _version_for(size: int) -> int:
    for version in range(1, len(_BLOCKS) + 1):
        if size <= _room(version):
            return version
    raise QrTextTooLong(bytes=size, bytes_max=_room(len(_BLOCKS)))


def _room(version: int) -> int:
    """Return how many bytes of text a version holds, its header of 4 + 8 or 16 bits apart."""
    return _data_bytes(version) - (2 if version < 10 else 3)


def _data_bytes(version: int) -> int:
    return _all_bytes(version) - _CHECK_BYTES[version - 1] * _BLOCKS[version - 1]


def _all_bytes(version: int) -> int:
    """Return how many whole bytes the modules beside the fixed patterns hold."""
    modules = (16 * version + 128) * version + 64
    if version >= 2:
        crossings = version // 7 + 2
        modules -= (25 * crossings - 10) * crossings - 55
        if version >= 7:
            modules -= 36
    return modules // 8


def _data(version: int, content: bytes) -> bytes:
    """Return mode, length, content, terminator and padding."""
    length_bits = 8 if version < 10 else 16
    value = (_BYTE_MODE << length_bits | len(content)) << 8 * len(content)
    value |= int.from_bytes(content, "big")
    bits = 4 + length_bits + 8 * len(content)
    capacity = 8 * _data_bytes(version)
    ended = min(bits + 4, capacity)
    whole = -(-ended // 8)
    head = (value << (8 * whole - bits)).to_bytes(whole, "big")
    padding = bytes([0xEC, 0x11]) * (capacity // 16 + 1)
    return head + padding[: capacity // 8 - whole]


def _with_check_bytes(version: int, data: bytes) -> bytes:
    """Cut the data into blocks, give each its check bytes, and interleave them all."""
    count, check = _BLOCKS[version - 1], _CHECK_BYTES[version - 1]
    short, longer = divmod(len(data), count)
    blocks = []
    at = 0
    for number in range(count):
        size = short + (number >= count - longer)
        blocks.append(data[at : at + size])
        at += size
    checks = [_remainder(block, check) for block in blocks]
    return bytes([*_interleaved(blocks), *_interleaved(checks)])


def _interleaved(blocks: Sequence[bytes]) -> Iterator[int]:
    for place in range(max(map(len, blocks))):
        yield from (block[place] for block in blocks if place < len(block))


@lru_cache(maxsize=32)
def _generator(degree: int) -> bytes:
    """Return the Reed–Solomon generator of a degree, its leading one left out."""
    factors = [0] * (degree - 1) + [1]
    root = 1
    for _ in range(degree):
        for place in range(degree):
            factors[place] = _product(factors[place], root)
            if place + 1 < degree:
                factors[place] ^= factors[place + 1]
        root = _product(root, 2)
    return bytes(factors)


def _remainder(block: bytes, degree: int) -> bytes:
    generator = _generator(degree)
    rest = [0] * degree
    for byte in block:
        factor = byte ^ rest[0]
        rest = [*rest[1:], 0]
        if factor:
            rest = [
                each ^ _product(coefficient, factor)
                for each, coefficient in zip(rest, generator, strict=True)
            ]
    return bytes(rest)


def _product(one: int, other: int) -> int:
    """Return a product in GF(256) modulo x⁸ + x⁴ + x³ + x² + 1."""
    result = 0
    for place in range(7, -1, -1):
        result = result << 1 ^ (result >> 7) * 0x11D
        result ^= (other >> place & 1) * one
    return result


Grid = list[list[bool]]


def _patterns(version: int) -> tuple[Grid, Grid]:
    """Return a symbol with its fixed patterns drawn, and which modules are free for data."""
    size = 17 + 4 * version
    dark = [[False] * size for _ in range(size)]
    free = [[True] * size for _ in range(size)]
    for row, column, is_dark in _fixed(version, size):
        if 0 <= row < size and 0 <= column < size:
            dark[row][column], free[row][column] = is_dark, False
    return dark, free


def _fixed(version: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """Yield the fixed modules; a later one lies over an earlier one, and some lie outside."""
    for place in range(size):
        yield 6, place, place % 2 == 0
        yield place, 6, place % 2 == 0
    for row, column in ((3, 3), (3, size - 4), (size - 4, 3)):
        yield from _rings(row, column, reach=4, light={2, 4})
    for row, column in _alignments(version):
        yield from _rings(row, column, reach=2, light={1})
    yield from ((row, column, False) for row, column in _format_places(size))
    yield size - 8, 8, True
    if version >= 7:
        bits = version << 12 | _code(version, 12, 0x1F25)
        for place in range(18):
            far, near, is_dark = size - 11 + place % 3, place // 3, bool(bits >> place & 1)
            yield near, far, is_dark
            yield far, near, is_dark


def _rings(
    row: int, column: int, *, reach: int, light: Collection[int]
) -> Iterator[tuple[int, int, bool]]:
    """Yield a square of rings around a centre, some of them light."""
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            yield row + dy, column + dx, max(abs(dy), abs(dx)) not in light


def _alignments(version: int) -> Iterator[tuple[int, int]]:
    """Yield the centres of the alignment patterns, those under a finder left out."""
    if version == 1:
        return
    count, last = version // 7 + 2, 10 + 4 * version
    step = (8 * version + 3 * count + 5) // (4 * count - 4) * 2
    places = [6, *sorted(last - step * number for number in range(count - 1))]
    corners = {(6, 6), (6, last), (last, 6)}
    yield from (
        (row, column) for row in places for column in places if (row, column) not in corners
    )


def _format_places(size: int) -> list[tuple[int, int]]:
    """Return where the 15 bits of the format are, twice: around one finder, beside the others."""
    around = [(place, 8) for place in (0, 1, 2, 3, 4, 5, 7, 8)]
    around += [(8, place) for place in (7, 5, 4, 3, 2, 1, 0)]
    beside = [(8, size - 1 - place) for place in range(8)]
    beside += [(size - 7 + place, 8) for place in range(7)]
    return around + beside


def _code(value: int, bits: int, generator: int) -> int:
    """Return the check bits of a BCH code."""
    rest = value
    for _ in range(bits):
        rest = rest << 1 ^ (rest >> (bits - 1)) * generator
    return rest


def _placed(blank: Grid, free: Grid, codewords: bytes) -> Grid:
    """Lay the bits in columns of two, upwards and downwards in turn, from the lower right."""
    size = len(blank)
    filled = [row.copy() for row in blank]
    bits = (byte >> place & 1 for byte in codewords for place in range(7, -1, -1))
    upwards = True
    for right in [*range(size - 1, 6, -2), *range(5, 0, -2)]:
        rows = range(size - 1, -1, -1) if upwards else range(size)
        for row in rows:
            for column in (right, right - 1):
                if free[row][column]:
                    filled[row][column] = bool(next(bits, 0))
        upwards = not upwards
    return filled


def _masked(filled: Grid, free: Grid, number: int) -> Grid:
    flips = _MASKS[number]
    masked = [
        [each ^ (free[y][x] and flips(y, x)) for x, each in enumerate(row)]
        for y, row in enumerate(filled)
    ]
    value = _LEVEL_M << 3 | number
    bits = (value << 10 | _code(value, 10, 0x537)) ^ 0x5412
    for place, (row, column) in enumerate(_format_places(len(filled))):
        masked[row][column] = bool(bits >> place % 15 & 1)
    return masked


def _penalty(grid: Grid) -> int:
    """Return how hard a symbol is to read (§7.8.3): runs, blocks, false finders, imbalance."""
    lines = [*grid, *map(list, zip(*grid, strict=True))]
    size = len(grid)
    blocks = sum(
        grid[y][x] == grid[y][x + 1] == grid[y + 1][x] == grid[y + 1][x + 1]
        for y in range(size - 1)
        for x in range(size - 1)
    )
    dark = sum(map(sum, grid))
    imbalance = abs(dark * 20 - size * size * 10) // (size * size)
    return sum(map(_line_penalty, lines)) + 3 * blocks + 10 * imbalance


def _line_penalty(line: Sequence[bool]) -> int:
    total, run = 0, 1
    for place in range(1, len(line) + 1):
        if place < len(line) and line[place] == line[place - 1]:
            run += 1
        else:
            total += run - 2 if run >= 5 else 0
            run = 1
    for place in range(len(line) - 6):
        if tuple(line[place : place + 7]) == _FINDER_LIKE:
            before, after = line[max(0, place - 4) : place], line[place + 7 : place + 11]
            total += 40 * (not any(before)) + 40 * (not any(after))
    return total
