"""The connections of each account: opened when needed, shared, never more than a few."""

from __future__ import annotations

import asyncio
import itertools
from uuid import UUID

from tongbao.kernel.clock import monotonic
from tongbao.kernel.codecs.iso8583 import Message
from tongbao.rails.channels.cards.line import CannotSend, Line, LineLimits, open_line
from tongbao.rails.channels.cards.messages import (
    SHOWN_OF_OURS,
    hidden_of,
    secrets_of,
    shown,
)
from tongbao.rails.channels.contract.orders import CardRead, ChannelAccount
from tongbao.rails.channels.contract.outcomes import Exchange, NotSent, Unknown
from tongbao.rails.channels.exchange import Request, evidence

ANSWERED = 200
"""What an exchange's status says when there was an answer; its own code is field 39."""


class Lines:
    """Asks an account's host over whichever connection has room."""

    def __init__(self, limits: LineLimits) -> None:
        self._limits = limits
        self._pools: dict[UUID, tuple[ChannelAccount, _Pool]] = {}

    async def ask(
        self, account: ChannelAccount, message: Message, card: CardRead | None = None
    ) -> tuple[Message | NotSent | Unknown, Exchange]:
        """Send the message once and return the answer, or what its absence means, with evidence."""
        began = monotonic()
        answer = await self._pool(account).ask(message)
        duration_ms = int((monotonic() - began) * 1000)
        request = Request(
            method=message.mti,
            url=account.gateway,
            headers={},
            body=b"",
            shown_url=account.gateway,
            shown_body=shown(message, SHOWN_OF_OURS),
            hidden=hidden_of(card),
        )
        if isinstance(answer, Message):
            return answer, evidence(request, ANSWERED, shown(answer), duration_ms)
        return answer, evidence(request, None, answer.reason, duration_ms)

    async def close(self) -> None:
        """Close every connection."""
        pools = [pool for _, pool in self._pools.values()]
        self._pools.clear()
        await asyncio.gather(*(pool.close() for pool in pools))

    def _pool(self, account: ChannelAccount) -> _Pool:
        known = self._pools.get(account.id)
        if known is not None and _same_host(known[0], account):
            return known[1]
        if known is not None:
            known[1].retire()
        pool = _Pool(account, self._limits)
        self._pools[account.id] = (account, pool)
        return pool


class _Pool:
    def __init__(self, account: ChannelAccount, limits: LineLimits) -> None:
        self._account = account
        self._limits = limits
        self._lines: list[Line] = []
        self._opening = asyncio.Lock()
        self._room = asyncio.Semaphore(limits.lines_max * limits.outstanding_max)
        self._sign_ins = itertools.count(1)
        self._retired = False

    async def ask(self, message: Message) -> Message | NotSent | Unknown:
        try:
            async with asyncio.timeout(self._limits.answer_s):
                await self._room.acquire()
        except TimeoutError:
            return NotSent("every connection is busy")
        try:
            line = await self._line_in_time()
            line.reserved += 1
            try:
                return await line.ask(message)
            finally:
                line.reserved -= 1
                self._drop_closed()
        except CannotSend as failure:
            return NotSent(failure.reason)
        finally:
            self._room.release()

    async def close(self) -> None:
        lines, self._lines = self._lines, []
        await asyncio.gather(*(line.close() for line in lines))

    def retire(self) -> None:
        self._retired = True
        self._drop_closed()

    async def _line_in_time(self) -> Line:
        """Return a line with room; who waits behind others that try in vain does not wait long."""
        try:
            async with asyncio.timeout(self._limits.connect_s + self._limits.sign_in_s):
                return await self._line()
        except TimeoutError:
            raise CannotSend("no connection in time") from None

    async def _line(self) -> Line:
        if (line := self._with_room()) is not None:
            return line
        # One opens at a time: whoever waited for it may find room on the line it opened.
        async with self._opening:
            if (line := self._with_room()) is not None:
                return line
            line = await open_line(self._account, self._limits, next(self._sign_ins))
            self._lines.append(line)
            return line

    def _with_room(self) -> Line | None:
        self._drop_closed()
        most = self._limits.outstanding_max
        free = [line for line in self._lines if line.is_open and line.reserved < most]
        return min(free, key=lambda line: line.reserved, default=None)

    def _drop_closed(self) -> None:
        """Forget lines that take nothing more, once nobody waits for an answer on them."""
        for line in list(self._lines):
            if (self._retired or not line.is_open) and not line.reserved:
                self._lines.remove(line)
                line.stop()


def _same_host(known: ChannelAccount, account: ChannelAccount) -> bool:
    return (
        known.gateway == account.gateway
        and known.merchant_number == account.merchant_number
        and known.app_id == account.app_id
        and secrets_of(known) == secrets_of(account)
    )
