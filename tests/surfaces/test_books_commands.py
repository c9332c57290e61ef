"""The books from the command line: days, trial balances, further books, money between them."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.ledger.making import ALICE, BANK, group, single
from tests.surfaces.commands import Cli
from tongbao.infra.db import Db
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import balance_of

CAMPAIGN = AccountKey("subsidy", "CNY", UUID(int=0xCA11))
WALLET = f"wallet:{show('wal', UUID(int=0xA11CE))}:CNY"


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
    }


@pytest.fixture
async def ledger(db: Db) -> AsyncIterator[Ledger]:
    ledger = Ledger(db, Licence.PAYMENT_INSTITUTION)
    await ledger.submit([group(single(1000, BANK, ALICE)), group(single(5000, BANK, CAMPAIGN))])
    yield ledger
    await ledger.close()


@pytest.fixture
def today(db: Db) -> str:
    return business_date(db.clock.now()).isoformat()


async def test_vouchers_are_built_shown_and_checked(cli: Cli, ledger: Ledger, today: str) -> None:
    built = await cli("--json", "gl", "build")
    balance = await cli("--json", "gl", "trial-balance", "--day", today)
    table = await cli("gl", "trial-balance", "--day", today, "--csv")
    lines = await cli("--json", "gl", "vouchers", "--day", today)
    spread = await cli("gl", "vouchers", "--day", today, "--csv")
    checked = await cli("--json", "gl", "check")

    assert built.json["ranges"] == 1
    assert {each["account"]: each["closing"] for each in balance.json} == {
        "1002": 6000,
        "2241.03": -1000,
        "2241.04": -5000,
    }
    rows = list(csv.reader(io.StringIO(table.out.removeprefix("\ufeff"))))
    assert rows[-1] == [
        "",
        "Total",
        "合计",
        "CNY",
        "0.00",
        "0.00",
        "60.00",
        "60.00",
        "60.00",
        "60.00",
    ]
    assert {each["posting"] for each in lines.json} == {"test/leg"}
    assert spread.out.count("test/leg") == len(lines.json)
    assert (checked.code, checked.json) == (0, [])


async def test_a_breach_of_the_general_ledger_ends_with_one(
    cli: Cli, ledger: Ledger, db: Db, today: str
) -> None:
    await cli("gl", "build")
    await db.execute("update gl_day_total set debits = debits + 1 where account = '1002'", ())
    checked = await cli("--json", "gl", "check")
    balance = await cli("gl", "trial-balance", "--day", today)
    ready = await cli("--json", "gl", "ready", "--day", today)
    verified = await cli("--json", "ledger", "verify")

    assert checked.code == balance.code == ready.code == verified.code == 1
    [broken] = [each for each in verified.json if each["breaches"]]
    assert (broken["book"], broken["check"], broken["breaches"]) == (1, "general_ledger", 3)
    assert await db.fetch("select 1 from ledger_book where stopped_because is not null", ()) == []
    assert {each["check"] for each in checked.json} == {"days", "accounts"}
    assert [each["part"] for each in ready.json if not each["ready"]] == ["balance"]


async def test_two_people_close_and_reopen_a_day(cli: Cli, ledger: Ledger, today: str) -> None:
    async def request(action: str) -> str:
        words = ("--json", "gl", action, "--day", today, "--reason", "end of day")
        return str((await cli(*words, LOGNAME="maker")).json["request"])

    async def answer(verb: str, request: str, who: str = "checker") -> Any:
        return (await cli("--json", "gl", verb, request, LOGNAME=who)).json

    async def closed_through() -> str:
        return str((await cli("--json", "ledger", "book", "list")).json[0]["closed_through"])

    closing = await request("close")
    alone = await cli("gl", "approve", closing, LOGNAME="maker")
    agreed = await answer("approve", closing)
    assert "general_ledger.same_person" in alone.err
    assert (agreed["state"], agreed["checker"]) == ("approved", "cli:checker")
    assert await closed_through() == today

    assert (await answer("reject", await request("reopen")))["state"] == "rejected"
    assert (await answer("withdraw", await request("reopen"), "maker"))["state"] == "withdrawn"
    assert (await answer("approve", await request("reopen")))["state"] == "approved"
    assert await closed_through() < today
    assert len((await cli("--json", "gl", "requests")).json) == 4


async def test_a_further_book_is_opened_and_an_account_moves_there(
    cli: Cli, ledger: Ledger, db: Db
) -> None:
    assert (await cli("ledger", "book", "open", "7")).code == 0
    heads = await cli("--json", "ledger", "book", "list")
    assert 7 in {each["book"] for each in heads.json}
    assert heads.json[0]["seq"] == 2
    moved = await cli("--json", "ledger", "move", WALLET, "--to", "7")
    assert moved.json == {"from": 1, "to": 7, "amount": 1000}
    assert (await balance_of(db, 7, ALICE)).posted == 1000
    transit = await cli("--json", "ledger", "transit")
    assert [(each["sent"], each["in_flight"], each["breach"]) for each in transit.json] == [
        (1000, 0, "")
    ]
    again = await cli("ledger", "move", WALLET, "--to", "7")
    assert (again.code, "ledger.account_not_movable" in again.err) == (1, True)


async def test_a_hot_account_is_split_and_filled_up(cli: Cli, ledger: Ledger) -> None:
    await cli("ledger", "book", "open", "7")
    name = f"subsidy:{CAMPAIGN.owner}:CNY"
    split = await cli(
        *("--json", "ledger", "split", name, "--book", "1", "--book", "7"),
        *("--low", "100", "--target", "2000"),
    )
    assert split.json == {"books": [1, 7], "low": 100, "target": 2000}
    filled = await cli("--json", "ledger", "rebalance")
    assert filled.json == [
        {"from": 1, "to": 7, "amount": 2000, "status": "created"},
        {
            "account": "subsidy",
            "currency": "CNY",
            "posted": 5000,
            "available": 3000,
            "moving": 2000,
        },
    ]
    transit = await cli("--json", "ledger", "transit")
    assert [each["in_flight"] for each in transit.json] == [2000]


@pytest.mark.parametrize(
    "account", ["wallet", "gold:x:CNY", "wallet:nobody:CNY", "wallet:wal_x:CNY", "wallet:::CNY"]
)
async def test_an_account_is_written_with_kind_owner_and_currency(cli: Cli, account: str) -> None:
    said = await cli("ledger", "move", account, "--to", "7")
    assert said.code == 2
    assert "Invalid value" in said.err
