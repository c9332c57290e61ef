"""QR symbols: each version as another program draws it, and what no symbol holds."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tongbao.kernel.codecs.qr_symbol import QUIET_ZONE, Modules, QrTextTooLong, draw, path

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors/qr_symbol/qrcode.json").read_text("utf-8")
)
FILLING = "0123456789abcdef:/.?=" * 200


def digest(modules: Modules) -> str:
    rows = "".join("".join("#" if dark else "." for dark in row) + "\n" for row in modules)
    return sha256(rows.encode()).hexdigest()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda each: f"{each['version']}-{each['length']}")
def test_a_symbol_is_what_another_program_draws(vector: dict[str, Any]) -> None:
    symbol = draw(vector["text"] or FILLING[: vector["length"]])

    assert len(symbol) == 17 + 4 * vector["version"]
    assert digest(symbol) == vector["sha256"]


def test_every_version_is_among_them() -> None:
    assert {each["version"] for each in VECTORS} == set(range(1, 41))


def test_the_longest_text_fits_and_one_byte_more_does_not() -> None:
    assert len(draw("x" * 2331)) == 177
    with pytest.raises(QrTextTooLong):
        draw("x" * 2332)


def test_its_path_covers_every_dark_module_once_and_leaves_the_zone_around_it_white() -> None:
    symbol = draw("https://example.com")
    covered = [
        (int(y), x)
        for left, y, width in re.findall(r"M(\d+),(\d+)h(\d+)v1h-\d+z", path(symbol))
        for x in range(int(left), int(left) + int(width))
    ]
    dark = {
        (y + QUIET_ZONE, x + QUIET_ZONE)
        for y, row in enumerate(symbol)
        for x, is_dark in enumerate(row)
        if is_dark
    }
    assert len(covered) == len(set(covered))
    assert set(covered) == dark
