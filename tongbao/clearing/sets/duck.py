"""The set engine: DuckDB, in this process, over files; it is an extra and may be absent.

It finds the numbers on which the bill, our payments and the ledger do *not* agree. Agreement is
equality of fingerprints (128 bits over number, amount and fee, with salt of the run's own, so that
nobody who writes a bill can aim at one); each must stand exactly once on either side. Everything
else is left over, with every line that shares a number with it.
"""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from tongbao.clearing.sets.parts import LINE_MAX, Part
from tongbao.clearing.sets.quick import QuickBill

MEMORY: Final = "1100MB"
THREADS_MAX: Final = 4
PAID_COLUMNS: Final = ("uuid", "uuid", "int8", "int8", "int8", "timestamptz")
NET_COLUMNS: Final = ("uuid", "int8")


class BookSum(Struct, frozen=True):
    """How many payments of a book agree, their amount and the fees both sides know."""

    book: int
    count: int
    amount: int
    fees: int


class Told(Struct, frozen=True):
    """A bill that the engine has read: its parts, and those it could not read to the last line."""

    quick: QuickBill
    parts: Sequence[Part]
    odd: frozenset[int]
    salt: str

    @property
    def middle(self) -> list[Part]:
        """The parts that the engine was given: neither end of the bill, and plain."""
        return [part for part in self.parts[1:-1] if part.is_plain]


class Ours(Struct, frozen=True):
    """Our sides of the day as they were written out. ``nets`` None: no ledger is kept.

    ``suspects`` are numbers to be left over whatever is said of them.
    """

    paid: Path
    nets: Path | None
    fee_ppm: int
    suspects: Sequence[str]


class Leftover(Struct, frozen=True):
    """What does not agree. ``odd`` parts are left over whole."""

    agreed: list[BookSum]
    ours: list[str]  # numbers of payments
    rows: dict[int, list[bytes]]  # part: the values of its number column
    odd: frozenset[int]


def is_there() -> bool:
    """Whether the set engine is installed."""
    return find_spec("duckdb") is not None


def connect(folder: Path, threads: int) -> Any:
    """Return a new engine that keeps to its memory and spills into a folder."""
    duckdb = importlib.import_module("duckdb")
    engine = duckdb.connect(":memory:", config={"threads": str(min(threads, THREADS_MAX))})
    engine.execute(f"set memory_limit = '{MEMORY}'")
    engine.execute("set temp_directory = ?", [str(folder / "spill")])
    engine.execute("set preserve_insertion_order = false")
    engine.execute("set autoinstall_known_extensions = false")
    engine.execute("set autoload_known_extensions = false")
    return engine


def read_bill(engine: Any, quick: QuickBill, parts: Sequence[Part], day: date) -> Told:
    """Take a bill's rows into the engine, as fingerprints."""
    told = Told(quick, parts, frozenset(), secrets.token_hex(16))
    _load_rows(engine, told, day)
    ends = {0, len(parts) - 1}
    odd = {part.place for part in parts if not part.is_plain} | _odd_parts(engine, told) | ends
    return replace(told, odd=frozenset(odd))


def find_leftover(engine: Any, told: Told, ours: Ours) -> Leftover:
    """Compare the three sides and return what is left over of each."""
    quick, paid = told.quick, str(ours.paid)
    engine.execute(_LOAD_PAID, [paid, told.salt, quick.prefix, ours.fee_ppm, quick.fee_noughts])
    load_nets(engine, ours.nets)
    engine.execute(_NOT_ONE)
    engine.execute(_LEFT, [list(ours.suspects), told.salt])
    agreed = [BookSum(*row) for row in engine.execute(_AGREED, [ours.fee_ppm]).fetchall()]
    numbers = [row[0] for row in engine.execute(_OURS, [paid, told.salt]).fetchall()]
    return Leftover(agreed=agreed, ours=numbers, rows=_rows_left(engine, told), odd=told.odd)


# Our side: a fingerprint of what the bill should say of each payment.
PAID_CSV: Final = """read_csv({paid}, header = false, auto_detect = false, delim = ',', quote = '',
    escape = '', columns = {{'number': 'VARCHAR', 'reference': 'VARCHAR', 'book': 'BIGINT',
    'amount': 'BIGINT', 'is_plain': 'BIGINT', 'at': 'BIGINT'}})"""
_LOAD_PAID: Final = f"""
    create table paid as
    select md5_number(concat(number, $2)) as nh, md5_number(reference) as rh, book, amount,
           is_plain,
           md5_number(concat($3, number, '/', $3,
                             (amount * 0.01::decimal(3, 2))::varchar, '/', $3,
                             (((amount * $4 + 500000) // 1000000) * 0.01::decimal(3, 2))::varchar,
                             $5, $2)) as sig
      from {PAID_CSV.format(paid="$1")}"""
_LOAD_NETS: Final = """
    create table net as
    select md5_number(reference) as rh, net
      from read_csv($1, header = false, auto_detect = false, delim = ',', quote = '', escape = '',
                    columns = {'reference': 'VARCHAR', 'net': 'BIGINT'})"""
_TOUCHED: Final = "select distinct part from told where nh in (select nh from leftover)"
_COUNT_PARTS: Final = "select part, count(*) from told group by part"
_NOT_ONE: Final = """
    create table wrong as
    select sig from (select sig, 1 as theirs, 0 as ours from told where sig is not null
                     union all select sig, 0, 1 from paid)
     group by sig having sum(theirs) <> 1 or sum(ours) <> 1"""
_NOT_BOOKED: Final = """
    create table unbooked as
    select rh from (select rh, amount as open, 1 as ours from paid
                    union all select rh, - net, 0 from net)
     group by rh having sum(open) <> 0 or sum(ours) <> 1"""
_LEFT: Final = """
    create table leftover as
    select nh from told where sig is null or sig in (select sig from wrong)
    union select nh from paid
           where is_plain = 0 or sig in (select sig from wrong)
              or rh in (select rh from unbooked)
    union select md5_number(concat(n, $2)) from (select unnest($1::varchar[]) as n)"""
_AGREED: Final = """
    select book, count(*), sum(amount)::bigint,
           sum((amount * $1 + 500000) // 1000000)::bigint
      from paid where nh not in (select nh from leftover) group by book order by book"""
_OURS: Final = f"""
    select number from {PAID_CSV.format(paid="$1")}
     where md5_number(concat(number, $2)) in (select nh from leftover)"""


def load_nets(engine: Any, nets: Path | None) -> None:
    """Note the payments that the ledger does not show as they are; None: no ledger is kept."""
    if nets is None:
        engine.execute("create table unbooked (rh uhugeint)")
        return
    if nets.exists() and nets.stat().st_size:
        engine.execute(_LOAD_NETS, [str(nets)])
    else:
        engine.execute("create table net (rh uhugeint, net bigint)")
    engine.execute(_NOT_BOOKED)
    engine.execute("drop table net")


def _load_rows(engine: Any, told: Told, day: date) -> None:
    """Read the bill: the number's fingerprint of every row, the whole one of a usual row."""
    quick = told.quick
    if not told.middle:
        engine.execute("create table told (part integer, nh uhugeint, sig uhugeint)")
        return
    skip = len(quick.prefix)
    sig = f"concat(c{quick.number}, '/', c{quick.amount}, '/', c{quick.fee}, $2)"
    engine.execute(
        f"""create table told as
            select file_index::integer as part,
                   md5_number(concat(substr(c{quick.number}, {skip + 1}), $2)) as nh,
                   case when {" and ".join(usual(quick, day))} then md5_number({sig}) end as sig
              from {lines_as_columns(quick)}""",
        [[str(part.path) for part in told.middle], told.salt],
    )


def usual(quick: QuickBill, day: date) -> list[str]:
    """Return the conditions of a line that can agree: a plain payment of the day."""
    begins, skip = f"{quick.prefix}{day.isoformat()} ", len(quick.prefix)
    at = f"c{quick.at}"
    return [
        f"{at} like '{begins}__:__:__' and substr({at}, {len(begins) + 1}, 2) < '24'",
        f"try_cast(substr({at}, {skip + 1}) as timestamp) is not null",
        *(f"c{column} = '{quick.prefix}{value}'" for column, value in quick.where),
        *(f"length(c{column}) > {skip}" for column in quick.filled),
    ]


def lines_as_columns(quick: QuickBill) -> str:
    """Return the bill's lines as columns; what has other columns is left out, and counted."""
    columns = ", ".join(f"'c{n}': 'VARCHAR'" for n in range(quick.column_count))
    return f"""read_csv($1, header = false, auto_detect = false, delim = ',', quote = '',
        escape = '', strict_mode = false, null_padding = false, ignore_errors = true,
        max_line_size = {2 * LINE_MAX}, nullstr = '\\N', columns = {{{columns}}})"""


def _odd_parts(engine: Any, told: Told) -> set[int]:
    """Return the parts of which the engine did not read every line, after forgetting them."""
    read = dict(engine.execute(_COUNT_PARTS).fetchall())
    odd = {
        index: part.place
        for index, part in enumerate(told.middle)
        if read.get(index, 0) != part.line_count
    }
    engine.execute("delete from told where part in (select unnest($1::integer[]))", [list(odd)])
    return set(odd.values())


def _rows_left(engine: Any, told: Told) -> dict[int, list[bytes]]:
    """Return the number column of every row that is left over, by part."""
    every, quick = told.middle, told.quick
    touched = engine.execute(_TOUCHED).fetchall()
    chosen = [every[index] for (index,) in sorted(touched)]
    if not chosen:
        return {}
    found = engine.execute(
        f"""select distinct file_index::integer, c{quick.number} from {lines_as_columns(quick)}
             where md5_number(concat(substr(c{quick.number}, {len(quick.prefix) + 1}), $2))
                   in (select nh from leftover)""",
        [[str(part.path) for part in chosen], told.salt],
    ).fetchall()
    rows: dict[int, list[bytes]] = {}
    for index, value in found:
        rows.setdefault(chosen[index].place, []).append(value.encode())
    return rows
