"""Take the pieces of a day's bill as they arrive, and close days whose last piece is there.

    <bills>/incoming/chn_…/2026-11-20/0930.csv ──taken──► …/taken/0930.csv
                                               └─refused► …/refused/0930.csv

Whoever brings pieces (an SFTP server's folder, a channel's agent) puts them there whole, by a
rename. A piece whose name ends with ``last`` is the day's last, for bills without a total.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog
from msgspec import Struct
from prometheus_client import Counter

from tongbao.clearing.context import Clearing
from tongbao.clearing.reconciliation.queries import bill_state
from tongbao.clearing.sets import duck
from tongbao.clearing.slices import _store as store
from tongbao.clearing.slices.model import (
    SLICE_S,
    SLICES,
    PieceSeenBefore,
    PieceUnreadable,
    SlicesMoved,
    SlicesNotPossible,
    TotalMissing,
)
from tongbao.clearing.slices.slices import close_by_slices, compare_slices, take_piece
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task
from tongbao.kernel.clock import business_date, day_bounds
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.rails.channels.accounts import ChannelAccountNotFound

EVERY: Final = timedelta(minutes=10)
"""How often the folder is looked into. Our own rule."""
STILL_MOVING: Final = timedelta(minutes=5)
"""How young a slice may be and not be compared yet: its payments are still being heard of."""
LOOKS_BACK: Final = timedelta(days=7)
"""How old a day may be to be looked at without a new piece."""
PIECES_POLICY: Final = RetryPolicy(
    attempts_max=1_000_000,  # nobody else takes the next piece
    delays=tuple(timedelta(minutes=m) for m in (1, 5, 10)),
    time_limit=timedelta(hours=1),
    concurrency_max=1,
)
PIECE_MAX: Final = 2 * 1024**3
_PIECES: Final = Counter(
    "tongbao_slice_pieces_total", "Pieces of bills that arrived, by what became of them", ["how"]
)
_PLACES: Final = frozenset({"taken", "refused"})
_log: Final = structlog.get_logger()


class TakePieces(Task, frozen=True, tag="slices.take_pieces"):
    """Take every piece that has arrived, compare the slices so far, close days that are whole."""


class Arrived(Struct, frozen=True):
    """The pieces of an account's day that wait, by name; perhaps none."""

    account_id: UUID
    day: date
    folder: Path
    pieces: list[Path]


def incoming(context: Clearing) -> Path:
    """Return the folder where pieces are put: below it one of each account, and of each day."""
    return context.folder / "incoming"


async def run_take_pieces(context: Clearing, _task: TakePieces, _lease: Lease) -> Again:
    """Look into the folder once, and come again; without the set engine there are no slices."""
    if duck.is_there():
        since = business_date(context.db.clock.now()) - LOOKS_BACK
        for arrived in await asyncio.to_thread(_look, incoming(context)):
            if arrived.pieces or arrived.day >= since:
                await take_arrived(context, arrived)
    return Again(EVERY)


async def take_arrived(context: Clearing, arrived: Arrived) -> None:
    """Take the pieces of an account's day, in order of their names, and bring its slices on."""
    account_id, day = arrived.account_id, arrived.day
    try:
        for path in arrived.pieces:
            await _take(context, arrived, path)
        pieces = await store.PIECES.all(context.db, account_id, day)
        if pieces and not await _is_closed(context, account_id, day):
            await compare_slices(context, account_id, day, until=_so_far(context, day))
            if any(each.has_total for each in pieces) and _is_over(context, day):
                await close_by_slices(context, account_id, day)
    except (SlicesMoved, TotalMissing) as later:
        _log.info("slices_wait", account=show("chn", account_id), day=day, code=later.code)
    except (SlicesNotPossible, ChannelAccountNotFound) as refusal:
        # The whole bill is compared in the morning, so nothing is lost but the early word.
        _log.warning("slices_refused", account=show("chn", account_id), day=day, code=refusal.code)


async def _take(context: Clearing, arrived: Arrived, path: Path) -> None:
    is_last, how = path.stem.endswith("last"), "taken"
    try:
        await asyncio.to_thread(_check_size, path)
        await take_piece(context, arrived.account_id, arrived.day, path, is_last=is_last)
    except PieceSeenBefore:
        how = "taken"  # whoever took it died before it was put away
    except (PieceUnreadable, SlicesNotPossible, ChannelAccountNotFound) as refusal:
        how = "refused"
        _note(arrived, path, refusal)
    failpoint("slices.after_piece")
    await asyncio.to_thread(_put_away, path, arrived.folder / how)
    _PIECES.labels(how).inc()


def _check_size(path: Path) -> None:
    if path.stat().st_size > PIECE_MAX:
        raise PieceUnreadable(bytes_max=PIECE_MAX)


def _note(arrived: Arrived, path: Path, refusal: Refusal) -> None:
    _log.warning(
        "slice_piece_refused",
        account=show("chn", arrived.account_id),
        day=arrived.day,
        name=path.name,
        code=refusal.code,
    )


def _look(root: Path) -> list[Arrived]:
    if not root.is_dir():
        return []
    return sorted(_days(root), key=lambda each: (each.day, each.account_id))


def _days(root: Path) -> Iterator[Arrived]:
    for home in root.iterdir():
        for folder in home.iterdir() if home.is_dir() and not home.is_symlink() else ():
            try:
                account_id, day = parse("chn", home.name), date.fromisoformat(folder.name)
            except (UnknownId, ValueError):
                continue
            if folder.is_dir() and not folder.is_symlink():
                yield Arrived(account_id, day, folder, sorted(_pieces(folder)))


def _pieces(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        is_whole = not path.name.startswith(".") and path.suffix != ".part"
        if is_whole and path.is_file() and not path.is_symlink() and path.name not in _PLACES:
            yield path


def _put_away(path: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    target, n = folder / path.name, 1
    while target.exists():
        target, n = folder / f"{path.stem}-{n}{path.suffix}", n + 1
    path.replace(target)


def _is_over(context: Clearing, day: date) -> bool:
    return day < business_date(context.db.clock.now())


def _so_far(context: Clearing, day: date) -> int:
    """Return the slice up to which the day is compared by now."""
    start, end = day_bounds(day)
    until = min(context.db.clock.now() - STILL_MOVING, end)
    return min(SLICES, max(0, int((until - start).total_seconds()) // SLICE_S))


async def _is_closed(context: Clearing, account_id: UUID, day: date) -> bool:
    state = await bill_state(context.db, account_id, day)
    return state is not None and state.is_final
