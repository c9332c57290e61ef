"""Every invariant holds after honest trade, and its light goes red for what breaks it."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import pytest

from tests.parties.test_e_accounts import withdraw
from tests.payments.test_e_account_payments import account_of, pay_from, teller_of
from tests.stage import Stage
from tests.surfaces.visitors import hire, reader
from tongbao.controls.audit_log.checkpoints import sign_checkpoint
from tongbao.infra import audit, audit_tree
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx
from tongbao.infra.tasks import Lease
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence
from tongbao.ledger.proofs.model import Proofs
from tongbao.ledger.queries import caught_up
from tongbao.parties.e_accounts import opening
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao.surfaces.invariants import _store as store
from tongbao.surfaces.invariants import rounds
from tongbao.surfaces.invariants.rounds import WatchInvariants, run_round, run_watch
from tongbao.surfaces.invariants.running import (
    INVARIANTS,
    LAST_ID,
    InvariantUnknown,
    chosen,
    lights,
    run_invariants,
)

LICENCE = Licence.PAYMENT_INSTITUTION
CARD = "4111111111111111"  # a scheme's own test number
BREAKS = {
    "I3": """insert into reserve_gap (id, mode, currency, day, kind, amount, proof_id, opened_at)
             values (gen_random_uuid(), 'live', 'CNY', '2026-11-02', 'short', 1,
                     gen_random_uuid(), now())""",
    "I4": "update payment set refunded = 1 where refunded = 0",
    "I5": "update payment_state_change set from_state = 'created', to_state = 'pending'",
    "I6": "update payment set captured = amount - 1, capture_within_s = 60",
    "I7": "update event set type = 'payment.payed' where type = 'payment.succeeded'",
    "I13": """update attempt set state = 'unknown';
              update payment set expires_at = expires_at - interval '9 days'""",
    "I14": f"update payment set subject = 'card {CARD} of Mr Li'",
}


async def of(db: Db, *names: str) -> dict[str, int]:
    found = await run_invariants(db, LICENCE, chosen(names, LICENCE))
    return {light.name: light.breaches for light in found}


async def test_honest_trade_breaks_nothing_and_whatever_breaks_one_is_named(stage: Stage) -> None:
    await stage.paid("alipay", 2_000)
    refunded = await stage.paid("wechat_pay", 1_000)
    await stage.refund(refunded, 300)
    await stage.idle()

    assert await of(stage.db) == dict.fromkeys((each.name for each in INVARIANTS), 0)
    for name, harm in BREAKS.items():
        for statement in harm.split(";"):
            assert await stage.db.execute(statement, ()), name
        assert (await of(stage.db, name))[name], name


async def test_a_light_remembers_since_when_it_is_red(db: Db) -> None:
    async with db.begin("operator:amy") as tx:
        await audit.record(tx, "channel.disabled", "chn_1", {"reason": f"card {CARD}"})
    assert await of(db, "I14") == {"I14": 1}
    [red] = await lights(db)
    assert red.first == "visa in audit_entry.facts"
    assert CARD not in str(red)
    db.clock.offset += timedelta(hours=1)
    await of(db, "I14")
    [still] = await lights(db)
    assert still.red_since == red.red_since
    assert still.checked_at > red.checked_at
    with pytest.raises(InvariantUnknown):
        chosen(["I16"], LICENCE)


async def test_the_round_runs_what_is_quick_and_the_board_shows_it(stage: Stage) -> None:
    await run_watch(stage.db, LICENCE, WatchInvariants(), Lease(new_id(), 1))
    assert {each.name for each in await lights(stage.db)} == {
        each.name for each in INVARIANTS if each.is_quick
    }
    async with reader(stage, await hire(stage)) as admin:
        page = await admin.get("/console/invariants")
        assert "I10" in page.text
        assert "is-succeeded" in page.text
        assert "is-failed" not in page.text


async def test_a_round_looks_at_what_is_new_and_again_at_the_past_piece_by_piece(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "PAYMENTS", 2)
    monkeypatch.setattr(rounds, "PIECES_MAX", 1)
    db, green = stage.db, {each.name: 0 for each in INVARIANTS if each.is_quick}
    await stage.paid("alipay", 2_000)
    refunded = await stage.paid("wechat_pay", 1_000)
    await stage.refund(refunded, 300)
    await stage.paid("alipay", 3_000)
    await stage.idle()

    assert not await run_round(db, LICENCE), "what is younger than five minutes waits"
    monkeypatch.setattr(rounds, "SETTLES", timedelta(0))
    await db.execute("delete from invariant_mark", ())
    assert await run_round(db, LICENCE), "two of three are looked at, one is left"
    assert not await run_round(db, LICENCE)
    assert {each.name: each.breaches for each in await lights(db)} == green

    for name in ("I4", "I5", "I6", "I7"):
        for statement in BREAKS[name].split(";"):
            assert await db.execute(statement, ()), name
    for _ in range(3):  # the past has three payments: it is looked at again in two pieces
        await run_round(db, LICENCE)
    red = {each.name for each in await lights(db) if each.breaches}
    assert red >= {"I4", "I5", "I6", "I7"}


async def test_only_a_look_at_everything_turns_a_light_green_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "SETTLES", timedelta(0))
    await stage.paid("alipay", 2_000)
    await stage.db.execute("update payment set refunded = 1", ())
    await run_round(stage.db, LICENCE)
    assert await _reds(stage.db) == {"I4"}
    await stage.db.execute("update payment set refunded = 0", ())
    await run_round(stage.db, LICENCE)
    assert await _reds(stage.db) == {"I4"}, "the piece is sound; the others were not seen"
    await stage.advance(hours=1)
    await run_round(stage.db, LICENCE)
    assert await _reds(stage.db) == set()


class Undone(Exception):
    """Nothing of a test's transaction is to stay."""


async def _fall_behind(tx: Tx) -> None:
    """Let the ledger's rows lack its last transfer, as they do until they follow."""
    for side, account in (("debits", "debit"), ("credits", "credit")):
        await tx.fetch(
            f"""update ledger_account a set {side}_posted = a.{side}_posted - t.amount
                  from ledger_transfer t, ledger_book b
                 where t.book = b.book and t.seq = b.last_seq and b.book = $1
                   and a.book = t.book and a.id = t.{account}_account""",
            (SANDBOX_BOOK,),
        )


async def test_peoples_accounts_say_what_the_ledger_says(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, everything = stage.db, (SANDBOX_BOOK, UUID(int=0), LAST_ID)
    accounts = [await account_of(stage, 3, fill=5_000) for _ in range(3)]
    payment = await stage.show_qr("wallet", 5_000)
    await pay_from(stage, accounts[0], payment)
    async with db.begin("test") as tx:
        await opening.close_account(tx, accounts[0])
    await stage.refund(payment, 700)  # no account takes it: it waits
    await stage.idle()
    await withdraw(teller_of(stage), accounts[1], 1)
    await caught_up(db, SANDBOX_BOOK)
    assert await of(db, "I15") == {"I15": 0}

    with suppress(Undone):
        async with db.begin("test") as tx:
            await _fall_behind(tx)
            assert (await store.E_ACCOUNTS_IN.one(tx, *everything)).breaches == 1
            by_one = "update ledger_watermark set seq = seq - 1, batch = batch - 1 where book = $1"
            await tx.fetch(by_one, (SANDBOX_BOOK,))
            assert (await store.E_ACCOUNTS_IN.one(tx, *everything)).breaches == 0, "added up"
            raise Undone

    monkeypatch.setattr(rounds, "ACCOUNTS", 1)
    await run_round(db, LICENCE)
    for harm, whose, named in (
        ("update e_account set balance = balance + 1 where id = $1", accounts[2], "e_account "),
        ("update e_account_refund set amount = amount + 1 where account_id = $1", accounts[0],
         "e_account_returned "),
        ("update ledger_account set owner = gen_random_uuid() where owner = $1", accounts[1],
         "e_account "),
    ):  # fmt: skip
        with suppress(Undone):
            async with db.begin("test") as tx:
                await tx.fetch(harm, (whose.id,))
                found = await store.E_ACCOUNTS_IN.one(tx, *everything)
                assert found.breaches in {1, 2}  # of another owner it is two
                assert found.first.startswith(named)
                raise Undone

    await db.fetch("update e_account set balance = balance + 1 where id = $1", (accounts[2].id,))
    seen = []
    for _ in range(6):  # three accounts in one book, none in the other: round and round
        await run_round(db, LICENCE)
        seen.append("I15" in await _reds(db))
    assert seen[0] is False, "its turn has not come"
    assert seen[-1] is True
    assert str(accounts[2].id) in next(x.first for x in await lights(db) if x.name == "I15")


async def test_a_round_derives_the_audit_logs_news_and_its_past_block_by_block(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where, name, value in (
        (rounds, "SMALL_LOG", 8), (rounds, "BLOCK", 4),
        (audit_tree, "BLOCK", 4), (audit_tree, "_BLOCK_LEVEL", 2),
    ):  # fmt: skip
        monkeypatch.setattr(where, name, value)
    proofs = Proofs(db, Keyring([b"k" * 32]))

    async def round_after(acts: int) -> set[str]:
        for _ in range(acts):
            async with db.begin("operator:amy") as tx:
                await audit.record(tx, "channel.disabled", "chn_1", {})
        await audit_tree.place_entries(db)
        await sign_checkpoint(proofs)
        await run_round(db, LICENCE)
        return await _reds(db)

    assert await round_after(9) == set()
    assert await round_after(5) == set()
    size = await audit_tree.size_of_log(db)
    marks = "select name, number from invariant_mark where name like 'audit%' order by name"
    assert [tuple(row) for row in await db.fetch(marks, ())] == [
        ("audit.new", 2),
        ("audit.past", 2),
    ]

    await db.execute("grant update on audit_entry to current_user", ())
    first = "(select entry_id from audit_leaf where number = 1)"
    await db.execute(f"update audit_entry set actor = 'eve' where id = {first}", ())
    seen = [await round_after(0) for _ in range(size // 4)]
    assert set() in seen, "an old entry waits for its block's turn"
    assert seen[-1] == {"I10"}


async def _reds(db: Db) -> set[str]:
    return {each.name for each in await lights(db) if each.breaches}
