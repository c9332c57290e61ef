"""Take parts of red packets: everybody who comes while a commit is under way shares the next one.

Each process has a queue for every red packet that is grabbed from. Its head counts parts out to
those who wait, in the order they came, and submits them as one group of linked transfers with one
companion, which raises the red packet's running totals by compare and set. So a burst of fifty
thousand costs some fifty commits, and of two processes that count out the same parts one is refused
as a whole, looks again and goes on.

Nothing is kept here that is not in the database: what a process remembers is only ever too old,
and then the compare and set says so.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from tongbao.infra.db import Write
from tongbao.infra.db_failures import UniqueKeyTaken
from tongbao.infra.failpoints import failpoint
from tongbao.infra.lookups import Lookups
from tongbao.infra.outbox import event_write
from tongbao.infra.tasks import cancel_write
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import Money
from tongbao.ledger.model import AccountKey, Group, GroupInFlight, Transfer
from tongbao.ledger.rules import posting
from tongbao.parties.accounts.model import Wallet
from tongbao.products.red_packets import _store as store
from tongbao.products.red_packets.hall import MOVED_ON, Hall, ended_event, pot_of
from tongbao.products.red_packets.model import (
    GrabRefused,
    RedPacket,
    RedPacketGrab,
    RedPacketNotFound,
    RedPacketState,
)
from tongbao.products.red_packets.returning import ReturnRedPacket, return_key

TOGETHER_MAX: Final = 1000
"""Grabs in one group: enough to share a commit, and few enough that other money passes between."""
PARTS_KEPT_MAX: Final = 1_000_000
"""Parts of red packets that a process remembers the amounts of, some ten megabytes."""
_TRIES_MAX: Final = 8
_PAUSE_S: Final = 0.02

_Place = tuple[int, UUID]
_Waiting = dict[UUID, list["asyncio.Future[RedPacketGrab | None]"]]


class _Entitled(Struct, frozen=True):
    """A red packet as this process knows it: ``packet`` may be behind, ``amounts`` never change."""

    packet: RedPacket
    amounts: Sequence[int]


class Grabbers:
    """The queues of one process."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._known = Lookups(self._read)  # a burst that begins asks once
        self._queues: OrderedDict[_Place, _Queue] = OrderedDict()
        self._parts_kept = 0

    async def grab(self, wallet: Wallet, red_packet_id: UUID) -> RedPacketGrab | None:
        """Return the wallet's part, taken now or before; None when there is nothing to take.

        Safe to repeat for ever: who has a part gets that one again.

        Raises:
            RedPacketNotFound: also for a red packet of another merchant, mode or currency.
            GrabRefused: this wallet cannot take money in.
            GroupInFlight, DatabaseUnavailable, LedgerOverloaded: try again; nobody gets two.
        """
        place = (wallet.book, red_packet_id)
        queue = self._queues.get(place)
        if queue is None:
            known = await self._known.get(place)
            if known is None:
                raise RedPacketNotFound
            queue = self._queues.get(place) or self._new_queue(place, known)
        self._queues.move_to_end(place)
        queue.check_of(wallet)
        return await queue.join(wallet.id)

    async def _read(self, places: Sequence[_Place]) -> Mapping[_Place, _Entitled]:
        found: dict[_Place, _Entitled] = {}
        for place in places:
            packet = await store.GET_PACKET.first(self._hall.db, *place)
            if packet is not None:
                split = await store.GET_SPLIT.one(self._hall.db, *place)
                found[place] = _Entitled(packet, split.amounts)
        return found

    def _new_queue(self, place: _Place, known: _Entitled) -> _Queue:
        queue = self._queues[place] = _Queue(self._hall, known)
        self._parts_kept += queue.parts
        for idle, each in list(self._queues.items()):  # those that were quiet longest come first
            if self._parts_kept <= PARTS_KEPT_MAX:
                break
            if each.is_idle and each is not queue:
                del self._queues[idle]
                self._parts_kept -= each.parts
        return queue


class _Queue:
    """Those who wait for a part of one red packet."""

    def __init__(self, hall: Hall, known: _Entitled) -> None:
        self._hall = hall
        self._packet = known.packet
        self._amounts = array("q", known.amounts)
        self._waiting: _Waiting = {}
        self._serving: asyncio.Task[None] | None = None

    @property
    def parts(self) -> int:
        return self._packet.parts

    @property
    def is_idle(self) -> bool:
        return self._serving is None

    def check_of(self, wallet: Wallet) -> None:
        packet = self._packet
        of = (packet.merchant_id, packet.mode, packet.currency)
        if (wallet.merchant_id, wallet.mode, wallet.currency) != of:
            raise RedPacketNotFound

    def join(self, wallet_id: UUID) -> asyncio.Future[RedPacketGrab | None]:
        future: asyncio.Future[RedPacketGrab | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(wallet_id, []).append(future)
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        return future

    async def _serve(self) -> None:
        try:
            while self._waiting:
                first = list(islice(self._waiting, TOGETHER_MAX))
                await self._serve_together({each: self._waiting.pop(each) for each in first})
        finally:
            self._serving = None
            left, self._waiting = self._waiting, {}
            _let_go(left)  # only where this task itself is ended

    async def _serve_together(self, asked: _Waiting) -> None:
        try:
            await self._count_out(asked)
        except Exception as failure:  # noqa: BLE001 - whoever asked decides what it means
            for futures in asked.values():
                for future in futures:
                    if not future.done():
                        future.set_exception(failure)
        except BaseException:
            _let_go(asked)
            raise

    async def _count_out(self, asked: _Waiting) -> None:
        """Answer everybody; whoever has a part already, by another request or process, keeps it.

        That nothing is left is said only of a red packet that is known to be at its end: a part
        that we were about to take for one may be free for the next.
        """
        for _ in range(_TRIES_MAX):
            _tell(asked, await self._held(asked))
            takers = [each for each, futures in asked.items() if not _all_done(futures)]
            free = self._packet.parts - self._packet.grabbed
            if not self._packet.is_open_at(self._hall.db.clock.now()):
                _tell(asked, dict.fromkeys(takers))
                return
            if not takers:
                return
            if not await self._take(asked, takers[:free]):
                await self._look_again()
            elif len(takers) <= free:
                return
        raise GroupInFlight

    async def _held(self, asked: _Waiting) -> dict[UUID, RedPacketGrab]:
        place = (self._packet.book, self._packet.id)
        found = await store.GRABS_OF.all(self._hall.db, *place, list(asked))
        return {each.wallet_id: each for each in found}

    async def _look_again(self) -> None:
        place = (self._packet.book, self._packet.id)
        self._packet = await store.GET_PACKET.one(self._hall.db, *place)

    async def _take(self, asked: _Waiting, takers: Sequence[UUID]) -> bool:
        """Give the next parts to these; False when the red packet is not as we believed."""
        now = self._hall.db.clock.now()
        grabs = self._grabs(takers, now)
        after = self._after(grabs, now)
        group = Group(
            id=new_id(),  # the ledger remembers a refusal for ever; being overtaken is not for ever
            book=after.book,
            transfers=tuple(_transfer(after, each) for each in grabs),
            companions=_companions(self._packet, after, grabs, now),
        )
        failpoint("red_packets.before_grab")
        try:
            [result] = await self._hall.ledger.submit([group])
        except UniqueKeyTaken:  # by the same wallet through another process, this very moment
            return False
        failpoint("red_packets.after_grab")
        if result.happened:
            self._packet = after
            _tell(asked, {each.wallet_id: each for each in grabs})
            return True
        if result.status == "in_flight":
            await asyncio.sleep(_PAUSE_S)
            return False
        if result.code == MOVED_ON:
            return False
        return await self._take_apart(asked, takers, str(result.code))

    async def _take_apart(self, asked: _Waiting, takers: Sequence[UUID], code: str) -> bool:
        """Find whose wallet cannot take money in, so that it keeps nobody else from theirs."""
        if len(takers) == 1:
            for future in asked[takers[0]]:
                if not future.done():
                    future.set_exception(GrabRefused(code=code))
            return True
        middle = len(takers) // 2
        return await self._take(asked, takers[:middle]) and await self._take(asked, takers[middle:])

    def _grabs(self, takers: Sequence[UUID], now: datetime) -> list[RedPacketGrab]:
        packet = self._packet
        return [
            RedPacketGrab(
                packet.book, packet.id, taker, new_id(), part + 1, self._amounts[part], now
            )
            for part, taker in enumerate(takers, start=packet.grabbed)
        ]

    def _after(self, grabs: Sequence[RedPacketGrab], now: datetime) -> RedPacket:
        packet = self._packet
        grabbed = packet.grabbed + len(grabs)
        is_last = grabbed == packet.parts
        return replace(
            packet,
            grabbed=grabbed,
            taken=packet.taken + sum(each.amount for each in grabs),
            state=RedPacketState.EMPTIED if is_last else RedPacketState.OPEN,
            ended_at=now if is_last else None,
        )


def _transfer(packet: RedPacket, grab: RedPacketGrab) -> Transfer:
    [transfer] = posting.transfers(
        "red_packet.grabbed",
        reference=grab.id,
        accounts={
            "subsidy": pot_of(packet),
            "wallet": AccountKey("wallet", packet.currency, grab.wallet_id),
        },
        amounts={"amount": Money(grab.amount, packet.currency)},
    )
    return transfer


def _companions(
    before: RedPacket, after: RedPacket, grabs: Sequence[RedPacketGrab], now: datetime
) -> tuple[Write, ...]:
    counted = (
        before.book,
        before.id,
        before.grabbed,
        len(grabs),
        after.taken - before.taken,
        now,
        [each.wallet_id for each in grabs],
        [each.id for each in grabs],
        [each.part for each in grabs],
        [each.amount for each in grabs],
    )
    grab = Write(store.GRAB, counted, refusal=MOVED_ON)
    if after.state is RedPacketState.OPEN:
        return (grab,)
    ending = cancel_write(ReturnRedPacket, return_key(after.id))
    return (grab, event_write(ended_event(after), now=now), ending)


def _let_go(asked: _Waiting) -> None:
    for futures in asked.values():
        for future in futures:
            future.cancel()


def _all_done(futures: Sequence[asyncio.Future[RedPacketGrab | None]]) -> bool:
    """Whether everybody who asked for a wallet has an answer, or went away."""
    return all(future.done() for future in futures)


def _tell(asked: _Waiting, answers: Mapping[UUID, RedPacketGrab | None]) -> None:
    for wallet_id, answer in answers.items():
        for future in asked[wallet_id]:
            if not future.done():
                future.set_result(answer)
