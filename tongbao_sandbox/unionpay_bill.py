"""UnionPay's settlement files: fixed-width GBK lines in a zip, of trades and of differences.

The widths are those of the file specification; between two fields stands a space. Texts are padded
with spaces on the right, amounts with zeros on the left, in bytes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from datetime import date, datetime
from typing import Final

from msgspec import Struct

from tongbao.kernel.money import share_half_up
from tongbao_sandbox.unionpay_wire import month_to_second

FEE_PPM: Final = 6000
"""0.60 %; the setting ``unionpay.fee_ppm`` overrides."""
WIDTHS: Final = (
    *(3, 11, 11, 6, 10, 19, 12, 4, 2, 21, 2, 32, 2, 6, 10, 13, 13, 4, 15, 2, 2, 6, 2, 4, 32, 1, 21),
    *(15, 1, 15, 32, 13, 13, 8, 32, 13, 13, 12, 2, 1, 32, 98),
)
DIFFERENCE_WIDTHS: Final = (
    *(3, 11, 11, 6, 10, 19, 12, 4, 2, 2, 6, 10, 4, 12, 13, 13, 15, 15, 1, 12, 2, 135),
)
_CODES: Final = {"01": "S22", "13": "S22", "03": "S25", "04": "S30", "31": "S31", "33": "S33"}
_ACQUIRER: Final = "00010000"
_MADE: Final = (2026, 1, 1, 0, 0, 0)


class Line(Struct, frozen=True, kw_only=True):
    """One row of the list of trades; a fee that is given back is negative."""

    kind: str
    subtype: str
    product: str
    number: str
    ref: str
    account: str
    done_at: datetime
    amount: int  # fen
    fee: int  # fen
    origin_number: str = ""
    origin_ref: str = ""
    shop: str = ""


class Difference(Struct, frozen=True):
    """One row of the list of differences."""

    code: str
    ref: str
    account: str
    at: datetime
    amount: int


def fee_of(amount: int, rate_ppm: int = FEE_PPM) -> int:
    """Return the service fee of an amount, rounded half up."""
    return share_half_up(amount, rate_ppm)


def bill_zip(
    merchant: str, day: date, lines: Sequence[Line], differences: Sequence[Difference]
) -> bytes:
    """Return the day's archive; the list of differences is there when there are any."""
    files = {f"INN{day:%y%m%d}88ZM_{merchant}": b"".join(row(merchant, line) for line in lines)}
    if differences:
        rows = b"".join(_difference_row(merchant, item) for item in differences)
        files[f"INN{day:%y%m%d}88ZME_{merchant}"] = rows
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, _MADE)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return packed.getvalue()


def row(merchant: str, line: Line) -> bytes:
    """Return a trade as its line."""
    is_income = line.kind in {"01", "03", "13"}
    settled = line.amount - line.fee if is_income else -(line.amount + line.fee)
    cells = (
        _CODES[line.kind], _ACQUIRER, _ACQUIRER, line.ref[-7:-1], month_to_second(line.done_at),
        _starred(line.account), f"{line.amount:012d}", "5812", "07", line.ref, "", line.number,
        "01", "", "", _signed(-line.fee), _signed(settled), "0001", "", line.kind, line.subtype,
        line.product, "01", "", "", "0", line.origin_ref, merchant, "", "", line.shop, "", "",
        "01080209", "", f"{0:013d}", f"{0:013d}", "", "", "1", line.origin_number, "",
    )  # fmt: skip
    return _fixed(cells, WIDTHS)


def _difference_row(merchant: str, item: Difference) -> bytes:
    cells = (
        item.code, _ACQUIRER, _ACQUIRER, item.ref[-7:-1], month_to_second(item.at),
        _starred(item.account), f"{item.amount:012d}", "5812", "07", "", "", "", "", item.ref[:12],
        _signed(0), _signed(-item.amount), merchant, "", "0", "", "", "",
    )  # fmt: skip
    return _fixed(cells, DIFFERENCE_WIDTHS)


def _fixed(cells: Sequence[str], widths: Sequence[int]) -> bytes:
    raw = []
    for cell, width in zip(cells, widths, strict=True):
        content = cell.encode("gbk", "replace")[:width]
        while content and content.decode("gbk", "ignore").encode("gbk") != content:
            content = content[:-1]  # a character cut in half is none
        raw.append(content.ljust(width))
    return b" ".join(raw) + b"\r\n"


def _signed(fen: int) -> str:
    """Return an amount with its side: C comes to the merchant, D is taken."""
    return f"{'D' if fen < 0 else 'C'}{abs(fen):012d}" if fen else f"C{0:012d}"


def _starred(account: str) -> str:
    return account[:6] + "*" * (len(account) - 10) + account[-4:]
