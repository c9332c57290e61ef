"""The post office: delivers callbacks with each channel's retry plan, and keeps the agenda.

Both run on the virtual clock: pushing the clock forward by a day makes everything of that day
happen at once, in order. Every try to deliver is kept with what the merchant answered.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import traceback
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

import httpx2
import msgspec

from tongbao_sandbox.clock import VirtualClock
from tongbao_sandbox.faults import Faults
from tongbao_sandbox.model import Attempt, Callback, Due, Fault, Variant
from tongbao_sandbox.seam import Channel, Rekeying
from tongbao_sandbox.state import State, from_us, to_us

IN_FLIGHT_MAX: Final = 16
ANSWER_WITHIN_S: Final = 5.0
HELD_AT_MOST_S: Final = 60.0
"""A callback held back to come out of order goes at last even when no other one follows."""
IDLE_S: Final = 0.5
SCAN: Final = "customer.scan"
"""The one action on the agenda that the core itself knows: a customer who scans later."""

_CALLBACK: Final = (
    "select id, channel, kind, number, url, content, variant, state, tries, next_us, made_us, lose"
    " from callback"
)


@cache
def trusted() -> ssl.SSLContext:
    """Return whom merchants' addresses are checked against; to read it takes a while, once."""
    return httpx2.create_ssl_context(trust_env=False)


class PostOffice:
    """Queues, delivers and remembers; one background task runs it."""

    def __init__(self, state: State, clock: VirtualClock, faults: Faults) -> None:
        self._state = state
        self._clock = clock
        self._faults = faults
        self._channels: Mapping[str, Channel] = {}
        self._kick = asyncio.Event()
        self._in_flight: dict[int, asyncio.Task[None]] = {}
        self._http = httpx2.AsyncClient(
            timeout=ANSWER_WITHIN_S, verify=trusted(), trust_env=False, follow_redirects=False
        )

    # What a channel calls (seam.Courier) ----------------------------------------------------

    def post(
        self, channel: str, kind: str, number: str, *, url: str, content: dict[str, Any]
    ) -> None:
        """Queue a notification, with whatever the scripted faults do to it."""
        if not url:
            return
        fault = self._faults.take(channel, "callback", number)
        if fault.name == "wrong_amount":
            content = self._channels[channel].wrong_amount(content)
        elif fault.name == "new_key" and isinstance(keyed := self._channels[channel], Rekeying):
            keyed.new_key()  # before the notification is signed, which it is when it goes
        letter = (channel, kind, number, url, msgspec.json.encode(content).decode())
        if fault.name in {"forged", "signtest"}:
            self._insert(letter, "forged" if fault.name == "forged" else "signtest")
        self._insert(letter, "genuine", fault)
        if fault.name == "doubled":
            self._insert(letter, "genuine")
        self.kick()

    def probe(self, channel: str, *, url: str, content: dict[str, Any]) -> None:
        """Queue a signature probe, which a merchant must refuse."""
        self._insert((channel, "probe", "", url, msgspec.json.encode(content).decode()), "signtest")
        self.kick()

    def at(
        self, channel: str, action: str, number: str, *, when: datetime, argument: str = ""
    ) -> None:
        """Have ``channel.act(action, number, argument, when)`` called at that virtual time."""
        self._state.db.execute(
            "insert into due (at_us, channel, action, number, argument) values (?, ?, ?, ?, ?)",
            (to_us(when), channel, action, number, argument),
        )
        self.kick()

    # What the control API calls -------------------------------------------------------------

    def kick(self) -> None:
        """Look at once for something to do; the clock or the queue has changed."""
        self._kick.set()

    def resend(self, callback_id: int) -> bool:
        """Start a callback's plan again now; false when there is none with this id."""
        cursor = self._state.db.execute(
            "update callback set state = 'waiting', tries = 0, lose = 0, held = 0, next_us = ?"
            " where id = ?",
            (to_us(self._clock.now()), callback_id),
        )
        self.kick()
        return cursor.rowcount == 1

    def lose(self, callback_id: int) -> bool:
        """Never deliver a callback that waits; false when none with this id does."""
        cursor = self._state.db.execute(
            "update callback set state = 'lost', next_us = null, held = 0"
            " where id = ? and state = 'waiting'",
            (callback_id,),
        )
        return cursor.rowcount == 1

    def delay(self, callback_id: int, seconds: float) -> bool:
        """Try a callback that waits so much later; false when none with this id does."""
        when = self._clock.now() + timedelta(seconds=seconds)
        cursor = self._state.db.execute(
            "update callback set next_us = ?, held = 0 where id = ? and state = 'waiting'",
            (to_us(when), callback_id),
        )
        self.kick()
        return cursor.rowcount == 1

    def double(self, callback_id: int) -> bool:
        """Deliver a callback now and a copy of it besides; false when there is none."""
        now = to_us(self._clock.now())
        cursor = self._state.db.execute(
            "insert into callback (channel, kind, number, url, content, variant, state, tries,"
            " next_us, made_us, lose, held) select channel, kind, number, url, content, variant,"
            " 'waiting', 0, ?, made_us, 0, 0 from callback where id = ?",
            (now, callback_id),
        )
        return cursor.rowcount == 1 and self.resend(callback_id)

    def callbacks(self, channel: str | None = None, number: str | None = None) -> list[Callback]:
        """Return the callbacks, oldest first."""
        rows = self._state.db.execute(
            f"{_CALLBACK} where (?1 is null or channel = ?1) and (?2 is null or number = ?2)"
            " order by id",
            (channel, number),
        )
        return [_callback(row) for row in rows]

    def newest_callbacks(self, channel: str, most: int) -> list[Callback]:
        """Return a channel's callbacks: those that wait, then the newest of the others."""
        rows = self._state.db.execute(
            f"{_CALLBACK} where channel = ? order by state = 'waiting' desc, id desc limit ?",
            (channel, most),
        )
        return [_callback(row) for row in rows]

    def attempts(self, callback_id: int) -> list[Attempt]:
        """Return every try to deliver a callback, oldest first."""
        rows = self._state.db.execute(
            "select callback_id, at_us, status, reply, error from attempt"
            " where callback_id = ? order by id",
            (callback_id,),
        )
        return [
            Attempt(
                callback_id=row[0], at=from_us(row[1]), status=row[2], reply=row[3], error=row[4]
            )
            for row in rows
        ]

    async def settle(self, timeout_s: float) -> bool:
        """Wait until nothing is due any more at the virtual time; false when time ran out."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._in_flight or self._next_us() <= to_us(self._clock.now()):
                    self.kick()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return False
        return True

    # The background task ---------------------------------------------------------------------

    async def run(self) -> None:
        """Do what is due, for ever; cancel to stop."""
        try:
            while True:
                self._kick.clear()
                self._act_on_agenda()
                self._launch_deliveries()
                wait = (self._next_us() - to_us(self._clock.now())) / 1_000_000
                if len(self._in_flight) >= IN_FLIGHT_MAX:
                    wait = IDLE_S
                try:
                    async with asyncio.timeout(min(max(wait, 0.0), IDLE_S)):
                        await self._kick.wait()
                except TimeoutError:
                    pass
        finally:
            for task in self._in_flight.values():
                task.cancel()
            await self._http.aclose()

    def use(self, channels: Mapping[str, Channel]) -> None:
        """Learn who signs and acts, before the first request comes."""
        self._channels = channels

    def _next_us(self) -> int:
        """Return when the next thing is due; far away when nothing is."""
        flying = ",".join(str(callback_id) for callback_id in self._in_flight)
        row = self._state.db.execute(
            "select min(at) from (select min(at_us) as at from due union all"
            f" select min(next_us) from callback where id not in ({flying}))"
        ).fetchone()
        return 1 << 62 if row[0] is None else int(row[0])

    def _act_on_agenda(self) -> None:
        while True:
            row = self._state.db.execute(
                "select id, at_us, channel, action, number, argument from due"
                " where at_us <= ? order by at_us, id limit 1",
                (to_us(self._clock.now()),),
            ).fetchone()
            if row is None:
                return
            due = Due(
                id=row[0],
                at=from_us(row[1]),
                channel=row[2],
                action=row[3],
                number=row[4],
                argument=row[5],
            )
            # Gone even if it fails: a mistake here must not come again for ever.
            self._state.db.execute("delete from due where id = ?", (due.id,))
            try:
                with self._state.begin():
                    self._act(due)
            except Exception:  # noqa: BLE001 - one bad item must not stop the world
                traceback.print_exc(file=sys.stderr)

    def _act(self, due: Due) -> None:
        channel = self._channels.get(due.channel)
        if channel is None:
            return
        if due.action != SCAN:
            channel.act(due.action, due.number, due.argument, due.at)
            return
        trade = self._state.trade(due.channel, due.number)
        if trade is not None:
            channel.scanned(trade, due.argument)

    def _launch_deliveries(self) -> None:
        room = IN_FLIGHT_MAX - len(self._in_flight)
        rows = self._state.db.execute(
            f"{_CALLBACK} where next_us <= ? order by next_us, id limit ?",
            (to_us(self._clock.now()), room + len(self._in_flight)),
        ).fetchall()
        for callback in [_callback(row) for row in rows]:
            if callback.id in self._in_flight or len(self._in_flight) >= IN_FLIGHT_MAX:
                continue
            task = asyncio.create_task(self._deliver(callback))
            self._in_flight[callback.id] = task

    async def _deliver(self, callback: Callback) -> None:
        status, reply, error = None, b"", ""
        try:
            if callback.lose:
                error = "lost on the way"
            else:
                outgoing = self._channels[callback.channel].outgoing(callback)
                answer = await self._http.post(
                    callback.url, content=outgoing.body, headers=list(outgoing.headers)
                )
                status, reply = answer.status_code, answer.content
        except (httpx2.HTTPError, httpx2.InvalidURL) as failure:
            error = f"{type(failure).__name__}: {failure}"
        except Exception as failure:  # noqa: BLE001 - a bug in a channel shows in the log of tries
            traceback.print_exc(file=sys.stderr)
            error = f"{type(failure).__name__}: {failure}"
        finally:
            self._in_flight.pop(callback.id, None)
        with self._state.begin():
            self._record(callback, status, reply, error)
        self.kick()

    def _record(self, callback: Callback, status: int | None, reply: bytes, error: str) -> None:
        accepted = status is not None and self._channels[callback.channel].accepted(status, reply)
        self._state.db.execute(
            "insert into attempt (callback_id, at_us, status, reply, error) values (?, ?, ?, ?, ?)",
            (
                callback.id,
                to_us(self._clock.now()),
                status,
                reply[:2000].decode("utf-8", "replace"),
                error,
            ),
        )
        tries = callback.tries + 1
        plan = self._channels[callback.channel].retry_plan
        state, next_us = "waiting", None
        if accepted:
            state = "delivered"
        elif callback.lose < 0:
            state = "lost"
        elif callback.variant != "genuine" or tries > len(plan):
            state = "gave_up"
        else:
            # Counted from the planned time, so that a pushed clock runs through the whole plan.
            planned = callback.next_at or self._clock.now()
            next_us = to_us(planned + timedelta(seconds=plan[tries - 1]))
        self._state.db.execute(
            "update callback set state = ?, tries = ?, next_us = ?, lose = max(lose - 1, 0),"
            " held = 0 where id = ?",
            (state, tries, next_us, callback.id),
        )
        # One has gone ahead, so those held back may follow.
        self._state.db.execute(
            "update callback set held = 0, next_us = ? where held = 1 and channel = ? and id <> ?",
            (to_us(self._clock.now()), callback.channel, callback.id),
        )

    def _insert(
        self,
        letter: tuple[str, str, str, str, str],
        variant: Variant,
        fault: Fault | None = None,
    ) -> None:
        now = self._clock.now()
        name = "" if fault is None else fault.name
        first, lose = now, 0
        if fault is not None and name == "late":
            first = now + timedelta(seconds=fault.seconds(60))
        elif fault is not None and name == "lost":
            lose = int(fault.argument or -1)
        elif name == "reordered":
            first = now + timedelta(seconds=HELD_AT_MOST_S)
        waits = bool(self._state.setting(f"{letter[0]}.hold_callbacks", False))
        self._state.db.execute(
            "insert into callback (channel, kind, number, url, content, variant, state, tries,"
            " next_us, made_us, lose, held) values (?, ?, ?, ?, ?, ?, 'waiting', 0, ?, ?, ?, ?)",
            (
                *(*letter, variant, None if waits else to_us(first), to_us(now), lose),
                int(name == "reordered" and not waits),
            ),
        )


def _callback(row: tuple[Any, ...]) -> Callback:
    return Callback(
        id=row[0],
        channel=row[1],
        kind=row[2],
        number=row[3],
        url=row[4],
        content=msgspec.json.decode(row[5]),
        variant=row[6],
        state=row[7],
        tries=row[8],
        next_at=None if row[9] is None else from_us(row[9]),
        made_at=from_us(row[10]),
        lose=row[11],
    )
