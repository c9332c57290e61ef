"""Live keys: two people make, widen and end one, once; its secret is shown once and lies sealed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Struct

from tests.dying import dying
from tests.parties.conftest import LICENCE, new_merchant
from tongbao.controls.approvals.approvals import (
    POLICIES,
    ApplyApproval,
    approve,
    reject,
    run_apply,
    work_of,
)
from tongbao.controls.approvals.model import (
    Approval,
    Approvals,
    ApprovalWaiting,
    MakerNotAllowed,
    OwnProposal,
    acts_of,
)
from tongbao.controls.approvals.queries import approval_with_id, changes_of
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.worker import Worker
from tongbao.kernel.ids import derived_id, new_id, show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.keys import KeysOnRecord, create_key, revoke_key, set_scopes
from tongbao.parties.identity.model import ApiKey, KeyEnded, KeyNotFound, ScopeUnknown
from tongbao.parties.live_keys.changes import (
    bound_acts,
    change_scopes,
    collect,
    propose_key,
    propose_revocation,
)
from tongbao.parties.live_keys.model import KeyCollected, KeyNotMadeYet, ScopesAsBefore
from tongbao.parties.merchants.merchants import set_state
from tongbao.parties.merchants.model import Merchant, MerchantStandsOtherwise, MerchantState

MAKER, CHECKER = "opr_maker", "opr_checker"
MAY = {"merchants_act"}
NO_LEASE: Any = None


class Desk(Struct):
    """Two operators at the acts on keys of one merchant."""

    db: Db
    keyring: Keyring
    merchant: Merchant
    approvals: Approvals
    worker: Worker

    async def ask(self, *scopes: str, reason: str = "a new till") -> Approval:
        async with self.db.begin(MAKER) as tx:
            return await propose_key(
                tx,
                self.merchant.id,
                licence=LICENCE,
                name="till",
                scopes=scopes or ("payments:read",),
                reason=reason,
                may=MAY,
            )

    async def change(self, key: ApiKey, *scopes: str) -> Any:
        async with self.db.begin(MAKER) as tx:
            return await change_scopes(
                tx, key.id, scopes, licence=LICENCE, reason="does more", may=MAY
            )

    async def ask_end(self, key: ApiKey) -> Approval:
        async with self.db.begin(MAKER) as tx:
            return await propose_revocation(tx, key.id, reason="was lost", may=MAY)

    async def agree(self, asked: Approval, by: str = CHECKER) -> None:
        async with self.db.begin(by) as tx:
            acts = self.approvals.acts
            await approve(tx, acts, asked.id, digest=asked.digest.hex(), may=MAY)

    async def decline(self, asked: Approval) -> None:
        async with self.db.begin(CHECKER) as tx:
            await reject(tx, self.approvals.acts, asked.id, reason="not now", may=MAY)

    async def work(self) -> None:
        await self.worker.run_until_idle(raise_failures=True)

    async def done(self, asked: Approval) -> str:
        await self.agree(asked)
        await self.work()
        found = await approval_with_id(self.db, asked.id)
        return found.code or found.state.value

    async def key(self, mode: Mode = Mode.LIVE, *scopes: str) -> ApiKey:
        async with self.db.begin("test") as tx:
            made = await create_key(
                tx,
                self.keyring,
                self.merchant.id,
                mode,
                licence=LICENCE,
                name="till",
                scopes=scopes or ("payments:read",),
            )
        return made.key

    async def on_record(self, key_id: Any) -> Any:
        return await KeysOnRecord(self.db, self.keyring).find(key_id)

    async def collected(self, asked: Approval) -> Any:
        async with self.db.begin("cli:somebody") as tx:
            return await collect(tx, self.keyring, asked.id)


@pytest.fixture
async def desk(db: Db, keyring: Keyring) -> Desk:
    merchant = await new_merchant(db, keyring, "Corner Shop")
    approvals = Approvals(db, acts_of(*bound_acts(db, keyring, LICENCE)))
    return Desk(db, keyring, merchant, approvals, Worker(db, work_of(approvals), POLICIES, {}))


async def test_a_live_key_takes_two_people_and_its_secret_is_shown_once(desk: Desk) -> None:
    asked = await desk.ask("refunds:write", "payments:read")
    with pytest.raises(KeyNotMadeYet):
        await desk.collected(asked)
    with pytest.raises(OwnProposal):
        await desk.agree(asked, by=MAKER)
    with pytest.raises(ApprovalWaiting):
        await desk.ask()

    assert await desk.done(asked) == "applied"

    made = await desk.collected(asked)
    secret = made.secret.reveal()
    found = await desk.on_record(made.key.id)
    assert found.secret.reveal() == secret
    assert found.caller.mode is Mode.LIVE
    assert found.caller.scopes == {"payments:read", "refunds:write"}
    with pytest.raises(KeyCollected):
        await desk.collected(asked)
    [row] = await desk.db.fetch("select * from api_key_handover", ())
    assert row["collected_by"] == "cli:somebody"


async def test_a_secret_lies_nowhere_in_clear(desk: Desk) -> None:
    asked = await desk.ask()
    await desk.done(asked)

    secret = (await desk.collected(asked)).secret.reveal()

    for table in ("approval", "audit_entry", "api_key", "api_key_handover", "task", "event"):
        rows = await desk.db.fetch(f"select t::text as row from {table} as t", ())
        assert rows or table == "task"
        hidden = (secret, secret.encode().hex())
        assert not [row for row in rows if any(each in row["row"] for each in hidden)]


@pytest.mark.parametrize(
    "place",
    ["approvals.before_effect", "approvals.before_effect_commit", "approvals.after_effect"],
)
async def test_whoever_dies_makes_one_key(desk: Desk, place: str) -> None:
    asked = await desk.ask()
    await desk.agree(asked)
    task = ApplyApproval(asked.id)
    with dying(place):
        await run_apply(desk.approvals, task, NO_LEASE)

    await asyncio.gather(*(run_apply(desk.approvals, task, NO_LEASE) for _ in range(3)))

    made = await desk.db.fetch("select id from api_key", ())
    assert [row["id"] for row in made] == [derived_id(asked.id, "key")]
    assert (await desk.collected(asked)).key.id == made[0]["id"]


async def test_dying_before_the_collection_is_committed_leaves_the_secret_there(desk: Desk) -> None:
    asked = await desk.ask()
    await desk.done(asked)
    with dying("live_keys.before_collection_commit"):
        await desk.collected(asked)

    assert (await desk.collected(asked)).secret.reveal().startswith("sk_live_")


async def test_a_rejected_proposal_makes_nothing(desk: Desk) -> None:
    asked = await desk.ask()

    await desk.decline(asked)
    await desk.work()

    with pytest.raises(KeyNotMadeYet):
        await desk.collected(asked)
    assert await desk.db.fetch("select id from api_key", ()) == []


async def test_a_merchant_that_is_gone_gets_no_key(desk: Desk) -> None:
    asked = await desk.ask()
    async with desk.db.begin("test") as tx:
        await set_state(tx, desk.merchant.id, MerchantState.GONE, because="left")

    assert await desk.done(asked) == MerchantStandsOtherwise.code
    with pytest.raises(MerchantStandsOtherwise):
        await desk.ask()


async def test_who_may_not_make_keys_proposes_none_and_scopes_must_exist(desk: Desk) -> None:
    with pytest.raises(ScopeUnknown):
        await desk.ask("everything")
    with pytest.raises(MakerNotAllowed):
        async with desk.db.begin(MAKER) as tx:
            await propose_key(
                tx,
                desk.merchant.id,
                licence=LICENCE,
                name="till",
                scopes=["payments:read"],
                reason="a new till",
                may={"view"},
            )


async def test_a_live_key_gains_nothing_before_two_people_agree(desk: Desk) -> None:
    key = await desk.key()
    asked = await desk.change(key, "payments:read", "refunds:write")
    assert isinstance(asked, Approval)
    with pytest.raises(OwnProposal):
        await desk.agree(asked, by=MAKER)
    assert (await desk.on_record(key.id)).caller.scopes == {"payments:read"}
    shown = {each.en: each.after for each in await changes_of(desk.approvals, asked)}
    assert shown["may also"] == "refunds:write"

    assert await desk.done(asked) == "applied"

    assert (await desk.on_record(key.id)).caller.scopes == {"payments:read", "refunds:write"}
    with pytest.raises(ScopesAsBefore):
        await desk.change(key, "refunds:write", "payments:read")


async def test_to_do_less_and_the_sandbox_need_nobody_else(desk: Desk) -> None:
    live = await desk.key(Mode.LIVE, "payments:read", "refunds:write")
    sandbox = await desk.key(Mode.SANDBOX)

    await desk.change(live, "payments:read")
    await desk.change(sandbox, "refunds:write")

    assert (await desk.on_record(live.id)).caller.scopes == {"payments:read"}
    assert (await desk.on_record(sandbox.id)).caller.scopes == {"refunds:write"}
    assert await desk.db.fetch("select id from approval", ()) == []


async def test_a_key_that_changed_meanwhile_is_not_widened(desk: Desk) -> None:
    key = await desk.key(Mode.LIVE, "payments:read", "events:read")
    asked = await desk.change(key, "payments:read", "events:read", "refunds:write")
    async with desk.db.begin("test") as tx:
        await set_scopes(tx, key, ["payments:read"], licence=LICENCE)

    assert await desk.done(asked) == "api_key.changed"
    assert (await desk.on_record(key.id)).caller.scopes == {"payments:read"}


async def test_two_people_end_a_live_key_once(desk: Desk) -> None:
    key = await desk.key()
    asked = await desk.ask_end(key)
    with pytest.raises(ApprovalWaiting):
        await desk.ask_end(key)
    assert not (await desk.on_record(key.id)).revoked

    assert await desk.done(asked) == "applied"

    assert (await desk.on_record(key.id)).revoked
    with pytest.raises(KeyEnded):
        await desk.ask_end(key)
    with pytest.raises(KeyEnded):
        await desk.change(key, "refunds:write")


async def test_the_merchant_may_be_quicker(desk: Desk) -> None:
    key = await desk.key()
    asked = await desk.ask_end(key)
    wider = await desk.change(key, "refunds:write")
    async with desk.db.begin("test") as tx:
        await revoke_key(tx, desk.merchant.id, Mode.LIVE, key.id)

    assert await desk.done(asked) == "applied"
    assert await desk.done(wider) == "api_key.ended"


async def test_a_key_nobody_has_is_unknown(desk: Desk) -> None:
    key = await desk.key()
    nobody = show("key", new_id())
    assert nobody != show("key", key.id)
    with pytest.raises(KeyNotFound):
        async with desk.db.begin(MAKER) as tx:
            await propose_revocation(tx, new_id(), reason="was lost", may=MAY)
