"""QR symbols (ISO/IEC 18004) as one SVG path, for pages that load nothing from elsewhere."""

from __future__ import annotations

import re
from typing import Final

import segno
from msgspec import Struct

from tongbao.kernel.errors import Rejected

QUIET_ZONE: Final = 4
"""Modules of white that must stay around a symbol (ISO/IEC 18004 §6.3.8)."""

_DARK: Final = re.compile(rb"\x01+")


class QrTextTooLong(Rejected):
    """No QR symbol holds a text this long."""

    code = "qr_symbol.too_long"
    advice = "Shorten the text to at most 2,331 bytes."
    advice_zh = "二维码内容过长，请缩短至 2331 字节以内。"


class Symbol(Struct, frozen=True):
    """A drawn code: ``size`` is the side in modules, its quiet zone included."""

    path: str
    size: int


def draw(text: str) -> Symbol:
    """Return the smallest symbol that holds a text, a unit for a module, dark modules as a path.

    Error correction is level M: a phone reads it off a counter with 15 % of it covered.

    Raises:
        QrTextTooLong
    """
    try:
        made = segno.make_qr(text, error="m", mode="byte", boost_error=False)
    except segno.DataOverflowError:
        raise QrTextTooLong from None
    strokes = [
        f"M{dark.start() + QUIET_ZONE},{y}h{len(dark[0])}v1h-{len(dark[0])}z"
        for y, row in enumerate(made.matrix, QUIET_ZONE)
        for dark in _DARK.finditer(row)
    ]
    return Symbol("".join(strokes), len(made.matrix) + 2 * QUIET_ZONE)
