"""Tell terminals of money that came in or went back, where the payment was asked for.

That is the terminal it names, and every terminal that stands by the plate it names.

Notices are planned in the dispatcher's transaction, so each event tells each terminal once. They
are kept for a week, and a terminal reads them by number from wherever it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from tongbao.infra.db import Db, Tx
from tongbao.infra.outbox import EventRow
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.queries import merchants_with_ids
from tongbao.parties.stores.model import StoreNotFound
from tongbao.parties.stores.stores import store_of_merchant
from tongbao.parties.terminals.inventory import (
    Place,
    terminals_at_plates,
    terminals_with_ids,
)
from tongbao.parties.terminals.model import METADATA_KEY, PREFIX, PlaceNotFound, Terminal
from tongbao.parties.terminals.model import TerminalState as State
from tongbao.payments.collecting.model import Payment
from tongbao.payments.collecting.queries import payments_at
from tongbao.payments.plates.model import PlateNotFound, PlateState
from tongbao.payments.plates.plates import plate_of_merchant
from tongbao.payments.terminal_notices import _store as store
from tongbao.payments.terminal_notices.model import Notice, notice_of, return_notice

KEPT: Final = timedelta(days=7)
_PLATE_KEY: Final = "plate_id"
_PAID: Final = "payment.succeeded"
_RETURNED: Final = "refund.succeeded"
_PRUNE_MAX: Final = 5000


class _About(NamedTuple):
    """An event with where it happened."""

    event: EventRow
    terminal: UUID | None
    plate: UUID | None
    sold: Payment | None  # of a refund: its payment


async def plan_terminal_notices(tx: Tx, events: Sequence[EventRow]) -> None:
    """Plan notices of payments and refunds that succeeded at a counter, for every terminal there.

    This is a fan-out of the dispatcher. Payments that name neither terminal nor plate cost no
    question to the database; refunds are asked about together, since they do not say where.
    """
    sold = await _sold(tx, events)
    about = [found for event in events if (found := _place_of(event, sold)) is not None]
    if not about:
        return
    told = await _who_hears(tx, about)
    if not told:
        return
    owners = [each.event.merchant_id for each, _ in told if each.event.merchant_id is not None]
    shops = await merchants_with_ids(tx, owners)
    counts = Counter(terminal.id for _, terminal in told)
    ids = sorted(counts)
    feeds = await store.ADVANCE.all(tx, ids, [counts[each] for each in ids])
    following = {feed.terminal_id: feed.last_seq - counts[feed.terminal_id] for feed in feeds}
    rows: list[tuple[object, ...]] = []
    for (event, _, _, of), terminal in told:
        following[terminal.id] += 1
        shop = shops[event.merchant_id].name if event.merchant_id is not None else ""
        seen = event.body["object"]
        body = (
            notice_of(seen, shop=shop, at=event.at)
            if of is None
            else return_notice(seen, of, shop=shop, at=event.at)
        )
        text = msgspec.json.encode(body).decode()
        whose = (event.merchant_id, event.mode.value, event.id)
        rows.append((terminal.id, following[terminal.id], *whose, text, event.at))
    await store.INSERT_NOTICES.run(tx, *[list(column) for column in zip(*rows, strict=True)])


async def _sold(tx: Tx, events: Sequence[EventRow]) -> dict[UUID, Payment]:
    """Return the payments that refunds among the events are of."""
    refunds = [
        (each.merchant_id, each.mode, _payment_of(each))
        for each in events
        if each.type == _RETURNED
    ]
    if not refunds:
        return {}
    owners = await merchants_with_ids(tx, [owner for owner, _, _ in refunds if owner is not None])
    places = [
        (owners[owner].book(mode), payment_id)
        for owner, mode, payment_id in refunds
        if owner is not None and payment_id is not None
    ]
    return {each.id: each for each in await payments_at(tx, places)}


def _payment_of(event: EventRow) -> UUID | None:
    return _id_in(event.body.get("object", {}), "payment_id", "pay")


def _place_of(event: EventRow, sold: Mapping[UUID, Payment]) -> _About | None:
    of = None
    if event.type == _RETURNED:
        payment_id = _payment_of(event)
        of = None if payment_id is None else sold.get(payment_id)
    elif event.type != _PAID:
        return None
    seen: dict[str, Any] = event.body.get("object", {})
    metadata: dict[str, Any] = (seen.get("metadata") if of is None else of.metadata) or {}
    terminal = _id_in(metadata, METADATA_KEY, PREFIX)
    plate = _id_in(metadata, _PLATE_KEY, "plt")
    return None if terminal is None and plate is None else _About(event, terminal, plate, of)


def _id_in(metadata: dict[str, Any], key: str, prefix: str) -> UUID | None:
    """Return the id that metadata name, in which a merchant may write anything."""
    if key not in metadata:
        return None
    try:
        return parse(prefix, str(metadata[key]))
    except Refusal:
        return None


async def _who_hears(tx: Tx, about: Sequence[_About]) -> list[tuple[_About, Terminal]]:
    """Return each event with each terminal of the same merchant and mode that is to tell it."""
    plates = {each.plate for each in about if each.plate is not None}
    named = {each.terminal for each in about if each.terminal is not None}
    at_plates = await terminals_at_plates(tx, plates) if plates else []
    by_id = await terminals_with_ids(tx, named) if named else {}
    told: list[tuple[_About, Terminal]] = []
    for found in about:
        event, terminal_id, plate, _ = found
        there = {each.id: each for each in at_plates if plate and each.plate_id == plate}
        if terminal_id in by_id:
            there[terminal_id] = by_id[terminal_id]
        told += [
            (found, each)
            for each in there.values()
            if each.state is State.BOUND
            and (each.merchant_id, each.mode) == (event.merchant_id, event.mode)
        ]
    return told


async def latest_notices(on: Db | Tx, terminal: Terminal, limit: int = 20) -> list[Notice]:
    """Return what a terminal was told last at the merchant it is at, latest first."""
    return await store.LATEST.all(on, terminal.id, terminal.merchant_id, terminal.mode, limit)


async def forget_old(db: Db) -> int:
    """Forget notices of more than a week ago, some thousands at once, and say how many."""
    async with db.begin("terminals") as tx:
        return await store.PRUNE.run(tx, tx.now - KEPT, _PRUNE_MAX)


class MerchantsPlaces:
    """Knows merchants' stores and plates, for terminals that are put there."""

    async def check(self, on: Tx, place: Place, merchant_id: UUID, mode: Mode) -> None:
        """Raise unless store and plate are the merchant's and in use.

        Raises:
            PlaceNotFound
        """
        if place.store_id is not None:
            try:
                store_there = await store_of_merchant(on, merchant_id, mode, place.store_id)
            except StoreNotFound:
                raise PlaceNotFound(param="$.store_id") from None
            if store_there.state != "open":
                raise PlaceNotFound(param="$.store_id")
        if place.plate_id is not None:
            try:
                plate = await plate_of_merchant(on, place.plate_id, merchant_id, mode)
            except PlateNotFound:
                raise PlaceNotFound(param="$.plate_id") from None
            if plate.state is not PlateState.ACTIVE:
                raise PlaceNotFound(param="$.plate_id")
