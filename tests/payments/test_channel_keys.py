"""Live channel keys: two people add and replace them; until then they lie sealed, then nowhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from tests.dying import dying
from tests.rails.test_accounts import TYPES, add, opening
from tongbao.controls.approvals.approvals import (
    ApplyApproval,
    ExpireApproval,
    approve,
    reject,
    run_apply,
    run_expire,
)
from tongbao.controls.approvals.model import (
    Approval,
    Approvals,
    ApprovalWaiting,
    OwnProposal,
    acts_of,
)
from tongbao.controls.approvals.queries import approval_with_id, changes_of
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.kernel.ids import derived_id
from tongbao.kernel.licence import Mode
from tongbao.payments.channel_keys.changes import (
    ADD,
    bound_acts,
    change_keys,
    fingerprints,
    propose_account,
)
from tongbao.rails.channels.accounts import (
    ChannelAccounts,
    ChannelKeysMalformed,
    NewAccount,
    checked_account,
    list_accounts,
)

MAY = {"merchants_act"}
KINDS: Any = TYPES
NO_LEASE: Any = None
OTHER_KEY = "o" * 32


class Desk(Struct):
    """Two operators at the acts on channel accounts."""

    db: Db
    keyring: Keyring
    approvals: Approvals

    async def ask(self, account: NewAccount) -> Approval:
        async with self.db.begin("opr_maker") as tx:
            return await propose_account(
                tx, self.keyring, KINDS, account, reason="a new account", may=MAY
            )

    async def ask_keys(self, account_id: Any, keys: Any) -> Any:
        async with self.db.begin("opr_maker") as tx:
            return await change_keys(
                tx, self.keyring, KINDS, account_id, keys, reason="yearly change", may=MAY
            )

    async def agree(self, asked: Approval, by: str = "opr_checker") -> None:
        async with self.db.begin(by) as tx:
            acts = self.approvals.acts
            await approve(tx, acts, asked.id, digest=asked.digest.hex(), may=MAY)

    async def work(self, asked: Approval) -> None:
        await run_apply(self.approvals, ApplyApproval(asked.id), NO_LEASE)

    async def done(self, asked: Approval) -> str:
        await self.agree(asked)
        await self.work(asked)
        found = await approval_with_id(self.db, asked.id)
        return found.code or found.state.value

    async def waiting(self) -> int:
        return len(await self.db.fetch("select id from channel_keys_waiting", ()))

    async def keys_of(self, account_id: Any) -> Any:
        accounts = ChannelAccounts(self.db, self.keyring, KINDS, "https://pay.example")
        return (await accounts.get(account_id)).secrets


@pytest.fixture
def desk(db: Db, tmp_path: Path) -> Desk:
    keyring = Keyring.from_file(tmp_path / "file.key")
    return Desk(db, keyring, Approvals(db, acts_of(*bound_acts(db, keyring))))


async def test_two_people_register_a_live_account(desk: Desk) -> None:
    account = opening()
    asked = await desk.ask(account)
    with pytest.raises(OwnProposal):
        await desk.agree(asked, by="opr_maker")
    with pytest.raises(ApprovalWaiting):
        await desk.ask(account)
    assert (await list_accounts(desk.db), await desk.waiting()) == ([], 1)

    assert await desk.done(asked) == "applied"

    account_id = derived_id(asked.id, "channel_account")
    assert msgspec.to_builtins(await desk.keys_of(account_id)) == account.keys
    assert await desk.waiting() == 0
    assert await desk.done(await desk.ask(account)) == "channel_account.exists"
    assert await desk.waiting() == 0


async def test_people_see_fingerprints_and_nothing_has_the_keys(desk: Desk) -> None:
    account = opening()
    asked = await desk.ask(account)

    marks = fingerprints(desk.keyring, checked_account(KINDS, account))
    seen = {each.en: each.after for each in await changes_of(desk.approvals, asked)}
    assert seen.items() >= {f"fingerprint of {name}": mark for name, mark in marks.items()}.items()
    other = opening(keys={**account.keys, "api_v3_key": OTHER_KEY})
    others = fingerprints(desk.keyring, checked_account(KINDS, other))
    assert {name for name in marks if marks[name] != others[name]} == {"api_v3_key"}

    secret = str(account.keys["api_v3_key"])
    for table in ("approval", "audit_entry", "event", "task", "channel_keys_waiting"):
        rows = await desk.db.fetch(f"select t::text as row from {table} as t", ())
        assert rows
        for row in rows:
            assert secret not in row["row"]
            assert secret.encode().hex() not in row["row"]


@pytest.mark.parametrize("end", ["rejected", "expired", "failed"])
async def test_keys_that_are_not_wanted_are_deleted(desk: Desk, end: str) -> None:
    row = await add(desk.db, desk.keyring)
    asked = await desk.ask(opening(app_id="wx_other" if end != "failed" else row.app_id))
    assert await desk.waiting() == 1

    if end == "rejected":
        async with desk.db.begin("opr_checker") as tx:
            await reject(tx, desk.approvals.acts, asked.id, reason="not ours", may=MAY)
    elif end == "expired":
        desk.db.clock.offset += ADD.lasts
        await run_expire(desk.approvals, ExpireApproval(asked.id), NO_LEASE)
    else:
        await desk.done(asked)

    assert (await approval_with_id(desk.db, asked.id)).state.value == end
    assert await desk.waiting() == 0
    assert len(await list_accounts(desk.db)) == 1


@pytest.mark.parametrize(
    "place",
    ["approvals.before_effect", "approvals.before_effect_commit", "approvals.after_effect"],
)
async def test_whoever_dies_replaces_the_keys_once(desk: Desk, place: str) -> None:
    row = await add(desk.db, desk.keyring)
    keys = {**opening().keys, "api_v3_key": OTHER_KEY}
    asked = await desk.ask_keys(row.id, keys)
    assert (await desk.keys_of(row.id)).api_v3_key != OTHER_KEY
    await desk.agree(asked)
    with dying(place):
        await desk.work(asked)

    await asyncio.gather(*(desk.work(asked) for _ in range(3)))

    assert (await approval_with_id(desk.db, asked.id)).state.value == "applied"
    assert msgspec.to_builtins(await desk.keys_of(row.id)) == keys
    assert await desk.waiting() == 0


async def test_keys_changed_behind_our_back_are_not_used(desk: Desk) -> None:
    row = await add(desk.db, desk.keyring)
    one = await desk.ask_keys(row.id, {**opening().keys, "api_v3_key": OTHER_KEY})
    two = await desk.ask(opening(app_id="wx_other"))
    sql = "update channel_keys_waiting set sealed = (select min(sealed) from channel_keys_waiting)"
    await desk.db.execute(sql, ())

    ends = {await desk.done(one), await desk.done(two)}

    assert ends == {"applied", "crypto.seal_unreadable"}


async def test_the_sandboxs_keys_need_nobody_else(desk: Desk) -> None:
    row = await add(desk.db, desk.keyring, mode=Mode.SANDBOX)
    keys = {**opening().keys, "api_v3_key": OTHER_KEY}

    assert await desk.ask_keys(row.id, keys) is None
    assert (await desk.keys_of(row.id)).api_v3_key == OTHER_KEY
    with pytest.raises(ChannelKeysMalformed):
        await desk.ask_keys(row.id, {"api_v3_key": OTHER_KEY})
