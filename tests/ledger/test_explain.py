"""An account is explained by its own chain, and a book rebuilt from nothing but its journal."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace

from tests.ledger.making import ALICE, BANK, BOB, MERCHANT, group, pending, post, single, void
from tongbao.ledger.audit.prove import rebuild
from tongbao.ledger.chains import HistoryArchived
from tongbao.ledger.history import explain as explaining
from tongbao.ledger.history.explain import Counters, explain, in_words, summary
from tongbao.ledger.model import AccountMissing, BookMissing, TransferKind
from tongbao.ledger.queries import balance_of, sums
from tongbao.ledger.rules.posting import RULES


async def a_life(ledger, steps=40, seed=3):
    """Let Alice live, and return what her four counters were after every transfer."""
    random, seen, now, open_holds = Random(seed), {}, [0, 0, 0, 0], []
    await ledger.submit([group(single(10_000, BANK, ALICE))])
    now[3] += 10_000
    seen[1] = Counters(*now)
    for _ in range(steps):
        lines = []
        for _ in range(random.randint(1, 8)):
            amount = random.randint(1, 20)
            step = random.choice(["in", "out", "hold", "post", "void", "other"])
            if step in {"post", "void"} and not open_holds:
                step = "hold"
            if step == "in":
                lines.append(single(amount, BANK, ALICE))
                now[3] += amount
            elif step == "out":
                lines.append(single(amount, ALICE, MERCHANT))
                now[1] += amount
            elif step == "hold":
                lines.append(pending(amount, ALICE, MERCHANT))
                open_holds.append(lines[-1])
                now[0] += amount
            elif step == "other":
                lines.append(single(amount, BANK, BOB))
            else:
                hold = open_holds.pop(0)
                now[0] -= hold.amount
                part = random.randint(1, hold.amount)
                lines.append(post(hold, part) if step == "post" else void(hold))
                now[1] += part if step == "post" else 0
            seen[len(seen) + 1] = Counters(*now)
        [result] = await ledger.submit([group(*lines)])
        assert result.status == "created", result
    return seen


async def test_the_counters_are_those_of_that_moment_from_either_end(db, ledger):
    seen = await a_life(ledger, steps=60)
    ways = set()
    for seq in range(1, len(seen) + 1, 7):
        told = await explain(db, 1, ALICE, at=seq)
        assert (told.seq, told.counters, told.agrees) == (seq, seen[seq], True)
        ways.add(told.derived_from)
    assert ways == {"start", "present"}
    told = await explain(db, 1, ALICE)
    balance = await balance_of(db, 1, ALICE)
    assert (told.posted, told.held, told.incoming) == (balance.posted, balance.held, 0)
    assert told.counters == seen[len(seen)]


async def test_a_long_chain_is_read_in_pieces(db, ledger, monkeypatch):
    monkeypatch.setattr(explaining, "_CHUNK", 3)
    seen = await a_life(ledger, steps=10)
    for seq in (1, len(seen) // 2, len(seen)):
        assert (await explain(db, 1, ALICE, at=seq)).counters == seen[seq]


async def test_the_newest_movements_are_told_in_both_languages(db, ledger):
    paid = single(1234, BANK, ALICE)
    hold = pending(30, ALICE, MERCHANT)
    lines = [paid, hold, post(hold, 20)]
    await ledger.submit([group(*lines)])
    told = await explain(db, 1, ALICE, lines=2)
    posted, held = told.lines
    assert (posted.kind, posted.change, posted.held) == (TransferKind.POST, -20, -30)
    assert (held.change, held.held, held.other) == (0, 30, MERCHANT)
    assert in_words(posted, "en") == (
        "#3 posted a hold of 0.20 CNY to “Owed to a merchant, not yet settled”; test/post;"
        " balance 12.14 CNY"
    )
    assert in_words(held, "zh") == (
        "第 2 笔：冻结 0.30 CNY，转至应付商户款；test/hold；余额 12.34 CNY"
    )
    assert summary(told, "en").startswith(
        "After #3: balance 12.14 CNY = credits 12.34 − debits 0.20; 0.00 of it held"
    )
    assert "余额 12.14 CNY = 贷 12.34 − 借 0.20" in summary(told, "zh")


async def test_a_rule_is_told_by_its_name(db, ledger):
    rule, terms = next(iter(RULES.items()))
    paid = replace(single(5, BANK, ALICE), code=f"{rule}/{terms.legs[0].name}")
    await ledger.submit([group(paid)])
    [line] = (await explain(db, 1, BANK)).lines
    assert RULES[rule].en in in_words(line, "en")
    assert RULES[rule].zh in in_words(line, "zh")


async def test_an_asset_grows_by_debits(db, ledger):
    await ledger.submit([group(single(10, BANK, ALICE), single(4, ALICE, BANK))])
    told = await explain(db, 1, BANK)
    assert (told.posted, [line.change for line in told.lines]) == (6, [-4, 10])
    assert "debits 0.10 − credits 0.04" in summary(told, "en")
    assert "借 0.10 − 贷 0.04" in summary(told, "zh")


async def test_before_its_first_transfer_an_account_had_nothing(db, ledger):
    await ledger.submit([group(single(10, BANK, ALICE), single(4, BANK, BOB))])
    told = await explain(db, 1, BOB, at=1)
    assert (told.counters, told.lines, told.agrees) == (Counters(), (), True)
    with pytest.raises(AccountMissing):
        await explain(db, 1, MERCHANT)


async def test_a_balance_that_was_tampered_with_does_not_agree(db, ledger):
    await ledger.submit([group(single(10, BANK, ALICE), single(4, BANK, ALICE))])
    await balance_of(db, 1, ALICE)
    await db.pool.execute("grant update on ledger_transfer to current_user")
    await db.pool.execute("update ledger_transfer set credit_after = 15 where seq = 2")
    told = await explain(db, 1, ALICE)
    assert (told.posted, told.noted, told.agrees) == (14, 15, False)
    assert "verify" in summary(told, "en")
    assert "verify" in summary(told, "zh")


async def test_what_went_to_the_archive_is_explained_from_the_present(db, ledger):
    seen = await a_life(ledger, steps=40)
    last = len(seen)
    await balance_of(db, 1, ALICE)
    await db.pool.execute("grant delete on ledger_transfer to current_user")
    await db.pool.execute("delete from ledger_transfer where seq <= $1", last // 2)
    told = await explain(db, 1, ALICE, at=last - 3, lines=1000)
    assert (told.counters, told.derived_from) == (seen[last - 3], "present")
    with pytest.raises(HistoryArchived):
        await explain(db, 1, ALICE, at=2)


async def test_a_book_is_rebuilt_from_its_journal_at_any_number(db, ledger):
    seen = await a_life(ledger, steps=10)
    await balance_of(db, 1, ALICE)
    made = await rebuild(db, 1)
    assert (made.seq, made.transfers, made.differences) == (len(seen), len(seen), ())
    assert list(made.kinds) == await sums(db, 1)
    early = await rebuild(db, 1, 1)
    assert (early.seq, early.transfers, early.differences) == (1, 1, None)
    assert {kind.kind: kind.posted for kind in early.kinds}["wallet"] == 10_000


async def test_every_stored_balance_that_differs_is_listed(db, ledger):
    await ledger.submit([group(single(10, BANK, ALICE))])
    await balance_of(db, 1, ALICE)
    await db.pool.execute("update ledger_account set credits_posted = 11 where kind = 'wallet'")
    await db.pool.execute("update ledger_account set debits_pending = 3 where kind = 'bank'")
    made = await rebuild(db, 1)
    assert {(each.counter, each.stored, each.replayed) for each in made.differences} == {
        ("credits_posted", 11, 10),
        ("debits_pending", 3, 0),
    }
    assert {kind.kind: kind.posted for kind in made.kinds} == {"bank": 10, "wallet": 10}
    with pytest.raises(BookMissing):
        await rebuild(db, 99)
