"""Sum a side up by slices of a day, in the set engine: count, amount, fees and digest of each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from tongbao.clearing.sets.duck import PAID_CSV, lines_as_columns, load_nets, usual
from tongbao.clearing.sets.parts import Part
from tongbao.clearing.sets.quick import QuickBill

MODULUS: Final = 1 << 62


class SliceSum(Struct, frozen=True):
    """One slice of one side. ``is_booked`` is of our side only."""

    place: int
    count: int
    amount: int
    fees: int
    digest: int
    is_booked: bool


_DIGEST: Final = "coalesce(sum(md5_number_lower({sig}) % {modulus}) % {modulus}, 0)::bigint"


def theirs(
    engine: Any, quick: QuickBill, parts: Sequence[Part], day: date, slice_s: int
) -> list[SliceSum]:
    """Return a bill's slices; a line whose time cannot be read is in the first one.

    A line that is unusual in any way counts, and adds nothing else: so its slice differs.
    """
    if not parts:
        return []
    skip = len(quick.prefix)
    at = f"c{quick.at}"
    clock = r"\d{4}-\d\d-\d\d ([01]\d|2[0-3]):[0-5]\d:[0-5]\d"
    hour, minute, second = (f"substr({at}, {skip + n}, 2)::integer" for n in (12, 15, 18))
    place = f"""case when regexp_full_match({at}, '{quick.prefix}{clock}')
        then ({hour} * 3600 + {minute} * 60 + {second}) // {slice_s} else 0 end"""
    is_usual = " and ".join(usual(quick, day))
    fen = f"try_cast(replace(substr(c{quick.amount}, {skip + 1}), '.', '') as bigint)"
    sig = f"concat(c{quick.number}, '/', c{quick.amount}, '/', c{quick.fee})"
    rows = engine.execute(
        f"""select {place} as place, count(*),
                   coalesce(sum({fen}) filter (where {is_usual}), 0)::bigint, 0,
                   coalesce(sum(md5_number_lower({sig}) % {MODULUS})
                            filter (where {is_usual}) % {MODULUS}, 0)::bigint, true
              from {lines_as_columns(quick)} group by 1 order by 1""",
        [[str(part.path) for part in parts]],
    ).fetchall()
    return [SliceSum(*row) for row in rows]


def ours(
    engine: Any,
    quick: QuickBill,
    files: tuple[Path, Path | None],
    fee_ppm: int,
    slice_s: int,
) -> list[SliceSum]:
    """Return our slices of what was written out: payments, and the ledger's movements."""
    paid, nets = files
    prefix = quick.prefix
    fee = f"(amount * {fee_ppm} + 500000) // 1000000"
    sig = (
        f"concat('{prefix}', number, '/', '{prefix}', (amount * 0.01::decimal(3, 2))::varchar,"
        f" '/', '{prefix}', (({fee}) * 0.01::decimal(3, 2))::varchar, '{quick.fee_noughts}')"
    )
    engine.execute(
        f"""create or replace table paid as
            select md5_number(reference) as rh, amount, is_plain, "at" // {slice_s} as place,
                   {fee} as fee, {sig} as sig
              from {PAID_CSV.format(paid="$1")}""",
        [str(paid)],
    )
    engine.execute("drop table if exists unbooked")
    load_nets(engine, nets)
    digest = _DIGEST.format(sig="sig", modulus=MODULUS)
    rows = engine.execute(
        f"""select place, count(*), sum(amount)::bigint, sum(fee)::bigint, {digest},
                   bool_and(is_plain = 1 and rh not in (select rh from unbooked))
              from paid group by place order by place"""
    ).fetchall()
    return [SliceSum(*row) for row in rows]
