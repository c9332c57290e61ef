"""Who may move the test clock, which is one for the whole deployment.

Settlement, expiry, agreements, e-accounts, meters and the ledger's days all read it, and some of
their rows belong to several merchants, so it cannot be a merchant's own. Whoever is alone may move
it; where others have sandbox keys too, only if the deployment says that they share it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from uuid import UUID

from msgspec import Struct

from tongbao.infra import test_clock
from tongbao.infra.db import Db, Tx
from tongbao.infra.test_clock import TestClockShared
from tongbao.parties.identity.queries import others_have_sandbox_keys


class ClockHand(Struct, frozen=True):
    """What moves the clock. ``is_shared``: those who share a deployment agreed to share it."""

    db: Db
    is_shared: bool

    async def may_move(self, merchant_id: UUID) -> bool:
        """Return whether a merchant may move the clock now."""
        return self.is_shared or not await others_have_sandbox_keys(self.db, merchant_id)

    async def move(
        self,
        by: timedelta,
        merchant_id: UUID,
        actor: str,
        *,
        take: Callable[[Tx], Awaitable[None]] | None = None,
    ) -> datetime:
        """Move business time forward for the whole deployment, in the name of a merchant.

        A key that another merchant gets at the same time is either seen, and the clock stays, or
        comes after the move. ``take`` is as `test_clock.advance` has it.

        Raises:
            TestClockShared, TestClockOff, TestClockStepInvalid, TestClockTooFar
        """

        async def check(tx: Tx) -> None:
            if not self.is_shared and await others_have_sandbox_keys(tx, merchant_id):
                raise TestClockShared

        return await test_clock.advance(self.db, by, actor, take=take, check=check)
