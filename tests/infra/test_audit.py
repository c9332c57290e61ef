"""The audit log."""

from __future__ import annotations

import asyncpg
import pytest

from tongbao.infra import audit
from tongbao.infra.db import Db


async def test_an_entry_says_who_did_what_when(db: Db) -> None:
    async with db.begin("operator:amy") as tx:
        entry_id = await audit.record(tx, "channel.disabled", "chn_1", {"reason": "drill"})
        now = tx.now
    [entry] = await audit.entries_of_subject(db, "chn_1")
    assert (entry.id, entry.actor, entry.action) == (entry_id, "operator:amy", "channel.disabled")
    assert entry.at == now
    assert entry.facts == {"reason": "drill"}


async def test_an_act_rolled_back_leaves_no_entry(db: Db) -> None:
    async def act_and_fail() -> None:
        async with db.begin("operator:amy") as tx:
            await audit.record(tx, "channel.disabled", "chn_1", {})
            raise LookupError

    with pytest.raises(LookupError):
        await act_and_fail()
    assert await audit.entries_of_subject(db, "chn_1") == []


@pytest.mark.parametrize(
    "statement", ["update audit_entry set actor = 'x'", "delete from audit_entry",
                  "truncate audit_entry"]
)  # fmt: skip
async def test_entries_cannot_be_changed_or_removed(db: Db, statement: str) -> None:
    async with db.begin("operator:amy") as tx:
        await audit.record(tx, "channel.disabled", "chn_1", {})
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await db.execute(statement, ())
