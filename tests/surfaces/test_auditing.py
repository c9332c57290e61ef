"""The commands that prove and explain the books."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ledger.making import ALICE, BANK, MERCHANT, group, pending, single
from tests.surfaces.commands import Cli
from tongbao.infra.db import Db
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.queries import balance_of

ACCOUNT = f"wallet:{ALICE.owner}:CNY"


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "error",
    }


@pytest.fixture
async def paid(db: Db) -> Db:
    ledger = Ledger(db, Licence.PAYMENT_INSTITUTION)
    await ledger.submit(
        [group(single(1000, BANK, ALICE), single(30, ALICE, MERCHANT), pending(5, ALICE, MERCHANT))]
    )
    await balance_of(db, 1, ALICE)
    await ledger.close()
    return db


async def test_a_sound_ledger_is_verified(cli: Cli, paid: Db) -> None:
    sound = await cli("--json", "ledger", "verify", "--parallel", "2")

    assert sound.code == 0, sound.err
    assert {each["breaches"] for each in sound.json} == {0}
    assert {each["book"] for each in sound.json} == {1, 2}
    sequence = {each["book"]: each for each in sound.json if each["check"] == "sequence"}
    assert sequence[1]["looked_at"] == 3


async def test_a_breach_stops_its_book_until_somebody_resumes_it(cli: Cli, paid: Db) -> None:
    await paid.execute("update ledger_account set touches = touches + 1 where kind = 'wallet'", ())

    told = await cli("--json", "ledger", "verify", "--no-stop")
    assert told.code == 1
    [broken] = [each for each in told.json if each["breaches"]]
    assert (broken["book"], broken["check"]) == (1, "chains")
    assert broken["first"].startswith("touches is 4, the transfers add up to 3 (account ")
    assert await stopped(paid) == [None, None]

    assert (await cli("ledger", "verify")).code == 1
    because, other = await stopped(paid)
    assert because.startswith("verify: chains: touches is 4")
    assert other is None

    still = await cli("ledger", "resume", "--because", "looked")
    assert still.code == 1
    assert "ledger.still_broken" in still.err
    await paid.execute("update ledger_account set touches = touches - 1 where kind = 'wallet'", ())
    resumed = await cli("--json", "ledger", "resume", "--because", "put right")
    assert resumed.json == {"book": 1, "state": "open"}
    assert await stopped(paid) == [None, None]
    acts = await paid.fetch(
        "select action, actor from audit_entry where action like 'ledger.book%' order by id", ()
    )
    assert [act["action"] for act in acts][-2:] == ["ledger.book_stopped", "ledger.book_resumed"]
    assert all(act["actor"].startswith("cli:") for act in acts[-2:])


async def test_who_answers_for_a_breach_may_resume_despite_it(cli: Cli, paid: Db) -> None:
    await paid.execute("update ledger_account set touches = touches + 1 where kind = 'wallet'", ())
    assert (await cli("ledger", "verify", "--book", "1")).code == 1

    resumed = await cli("ledger", "resume", "--because", "known", "--despite-breach")

    assert resumed.code == 0, resumed.err
    assert await stopped(paid) == [None, None]
    missing = await cli("ledger", "resume", "--book", "9", "--because", "x", "--despite-breach")
    assert "ledger.book_missing" in missing.err


async def stopped(db: Db) -> list[str | None]:
    rows = await db.fetch("select stopped_because from ledger_book order by book", ())
    return [row["stopped_because"] for row in rows]


async def test_an_account_is_explained_in_words_and_in_figures(cli: Cli, paid: Db) -> None:
    english = await cli("ledger", "explain", ACCOUNT, "--at", "2")
    assert english.out.splitlines() == [
        (
            "After #2: balance 9.70 CNY = credits 10.00 − debits 0.30; 0.00 of it held,"
            " 0.00 may still arrive"
        ),
        "#2 moved 0.30 CNY to “Owed to a merchant, not yet settled”; test/leg; balance 9.70 CNY",
        "#1 moved 10.00 CNY from “Money at the bank”; test/leg; balance 10.00 CNY",
    ]
    chinese = await cli("ledger", "explain", ACCOUNT, "--language", "zh", "--lines", "1")
    assert chinese.out.splitlines() == [
        "截至第 3 笔：余额 9.70 CNY = 贷 10.00 − 借 0.30；其中冻结 0.05，待入账 0.00",
        "第 3 笔：冻结 0.05 CNY，转至应付商户款；test/hold；余额 9.70 CNY",
    ]
    facts = (await cli("--json", "ledger", "explain", ACCOUNT)).json
    assert (facts["debits_pending"], facts["debits_posted"]) == (5, 30)
    assert (facts["balance"], facts["held"], facts["noted"]) == (970, 5, 970)
    assert [line["change"] for line in facts["lines"]] == [0, -30, 1000]


async def test_an_account_that_does_not_agree_ends_in_failure(cli: Cli, paid: Db) -> None:
    await paid.execute("grant update on ledger_transfer to current_user", ())
    await paid.execute("update ledger_transfer set credit_after = 7 where seq = 1", ())

    said = await cli("ledger", "explain", ACCOUNT, "--at", "1")

    assert said.code == 1
    assert "run tongbao ledger verify" in said.out


async def test_an_account_nobody_used_is_refused(cli: Cli, paid: Db) -> None:
    said = await cli("ledger", "explain", f"wallet:{MERCHANT.owner}:CNY")

    assert said.code == 1
    assert "ledger.account_missing" in said.err


async def test_balances_are_replayed_and_compared(cli: Cli, paid: Db) -> None:
    same = await cli("--json", "ledger", "replay")
    assert same.code == 0
    assert (same.json["seq"], same.json["compared"], same.json["differences"]) == (3, True, [])
    past = (await cli("--json", "ledger", "replay", "--at", "1")).json
    assert (past["transfers"], past["compared"]) == (1, False)
    assert {kind["kind"]: kind["balance"] for kind in past["kinds"]} == {
        "bank": 1000,
        "merchant_payable": 0,
        "wallet": 1000,
    }

    await paid.execute("update ledger_account set credits_posted = 1001 where kind = 'wallet'", ())
    other = await cli("ledger", "replay")
    assert other.code == 1
    assert "counter=credits_posted  stored=1001  replayed=1000" in other.out


async def test_balances_are_shown_by_kind_and_by_owner(cli: Cli, paid: Db) -> None:
    kinds = (await cli("--json", "ledger", "balances")).json
    assert {row["account"]: row["balance"] for row in kinds} == {
        "Money at the bank": "10.00",
        "Owed to a merchant, not yet settled": "0.30",
        "A customer's wallet balance": "9.70",
    }
    [owned] = (await cli("--json", "ledger", "balances", "--account", ACCOUNT)).json
    assert (owned["balance"], owned["held"], owned["available"]) == ("9.70", "0.05", "9.65")
    assert "客户钱包余额" in (await cli("ledger", "balances", "--language", "zh")).out
