"""A batch's totals, ours and the host's: field 48 of settlement (0500 and its answer 0510)."""

from __future__ import annotations

from typing import Final, Literal

from tongbao.kernel.codecs.iso8583 import FieldMalformed
from tongbao.kernel.codecs.iso8583_parts import split_field
from tongbao.rails.channels.contract.bills import BatchTotals

_LAYOUT: Final = (
    ("debit_count", 3),
    ("debit_amount", 12),
    ("credit_count", 3),
    ("credit_amount", 12),
    ("verdict", 1),
)
_FOREIGN: Final = "0" * 31
"""The same five figures of foreign cards, which nobody takes here."""

Verdict = Literal["not_asked", "agree", "differ", "failed"]
_VERDICTS: Final[dict[str, Verdict]] = {
    "0": "not_asked",
    "1": "agree",
    "2": "differ",
    "3": "failed",
}


def fits(totals: BatchTotals) -> bool:
    """Return whether field 48 can hold the figures."""
    counts = (totals.debit_count, totals.credit_count)
    amounts = (totals.debit_amount, totals.credit_amount)
    return all(0 <= count <= 999 for count in counts) and all(
        0 <= amount < 10**12 for amount in amounts
    )


def write_totals(totals: BatchTotals) -> str:
    """Return field 48 of the request; `fits` must hold."""
    return (
        f"{totals.debit_count:03d}{totals.debit_amount:012d}"
        f"{totals.credit_count:03d}{totals.credit_amount:012d}0{_FOREIGN}"
    )


def read_totals(text: str) -> tuple[BatchTotals, Verdict] | None:
    """Return the figures and the verdict in field 48 of an answer, or None if it has none."""
    try:
        parts = split_field(text[:31], _LAYOUT)
    except FieldMalformed:
        return None
    verdict = _VERDICTS.get(parts.get("verdict", ""))
    if verdict is None or not (text.isascii() and text.isdigit()):
        return None
    totals = BatchTotals(
        int(parts["debit_count"]),
        int(parts["debit_amount"]),
        int(parts["credit_count"]),
        int(parts["credit_amount"]),
    )
    return totals, verdict
