"""Accounting days in the console: who may close one, and the figures to see before."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator

import pytest

from tests.stage import Stage
from tests.surfaces.visitors import Reader, hire, reader
from tongbao.infra.audit import entries_of_subject
from tongbao.kernel.clock import business_date
from tongbao.ledger.general.vouchers import build_vouchers, coverage
from tongbao.parties.identity.model import Role

BOOK = 2  # the sandbox's
DAYS = f"/console/ledger/{BOOK}/days"


@pytest.fixture
async def finance(stage: Stage) -> AsyncIterator[Reader]:
    """Somebody from finance who is logged in."""
    async with reader(stage, await hire(stage, Role.FINANCE)) as one:
        yield one


@pytest.fixture
async def day(stage: Stage) -> str:
    """A day with a payment in its vouchers."""
    await stage.paid("wechat_pay", 1000)
    await build_vouchers(stage.db, BOOK)
    return business_date(stage.db.clock.now()).isoformat()


async def test_a_day_shows_its_trial_balance_vouchers_and_what_closing_waits_for(
    stage: Stage, finance: Reader, day: str
) -> None:
    ledger = await finance.get("/console/ledger")
    days = await finance.get(DAYS)
    own = await finance.get(f"{DAYS}/{day}")
    voucher = re.search(rf'href="({DAYS}/{day}/vouchers/\d+)"', own.text)
    assert voucher is not None
    lines = await finance.get(voucher[1])

    assert f'href="{DAYS}"' in ledger.text
    assert f'href="{DAYS}/{day}"' in days.text
    assert "Payable to merchants" in own.text
    assert "Balanced" in own.text
    assert own.text.count(">ready<") >= 5
    assert "Payment captured" in lines.text
    assert "payment.captured/gross" in lines.text


async def test_a_book_without_entries_says_so(stage: Stage, finance: Reader) -> None:
    days = await finance.get("/console/ledger/1/days")
    own = await finance.get("/console/ledger/1/days/2020-01-01")

    assert "No vouchers yet" in days.text
    assert "No day is closed yet." in days.text
    assert "Nothing was entered up to this day" in own.text
    assert "No voucher on this day" in own.text


async def test_both_tables_can_be_taken_away_as_files(
    stage: Stage, finance: Reader, day: str
) -> None:
    balance = await finance.get(f"{DAYS}/{day}/trial-balance.csv")
    vouchers = await finance.get(f"{DAYS}/{day}/vouchers.csv")
    rows = list(csv.DictReader(io.StringIO(balance.text.removeprefix("\ufeff"))))

    assert "trial-balance" in balance.headers["content-disposition"]
    assert rows[-1]["name"] == "Total"
    assert rows[-1]["debits"] == rows[-1]["credits"] != "0.00"
    assert {"应收渠道款", "payment.captured/gross"} <= {
        cell.removeprefix("其他应收款—")
        for row in csv.reader(io.StringIO(balance.text + vouchers.text))
        for cell in row
    }
    told = [each.action for each in await entries_of_subject(stage.db, f"book {BOOK}")]
    assert told.count("general_ledger.exported") >= 2


async def test_closing_a_day_takes_two_people(stage: Stage, finance: Reader, day: str) -> None:
    await finance.get(DAYS)
    asked = await finance.follow(
        await finance.send(DAYS, what="close", day=day, reason="end of day")
    )
    request = re.search(r"day-requests/(gdr_\w+)/withdraw", asked.text)
    assert request is not None
    own = f"/console/ledger/{BOOK}/day-requests/{request[1]}"
    token = finance.form("/console/logout").fields["form_token"]
    alone = await finance.post(f"{own}/approve", {"form_token": token})
    async with reader(stage, await hire(stage, Role.FINANCE, "li.na")) as second:
        await second.get(DAYS)
        agreed = await second.follow(await second.send(f"{own}/approve"))
        closed = await coverage(stage.db, BOOK)
        reopening = await second.follow(
            await second.send(DAYS, what="reopen", day=day, reason="the test is over")
        )
        again = re.search(r"day-requests/(gdr_\w+)/withdraw", reopening.text)
        assert again is not None
        await finance.get(DAYS)
        opened = await finance.follow(
            await finance.send(f"/console/ledger/{BOOK}/day-requests/{again[1]}/approve")
        )

    assert "A colleague has to decide." in asked.text
    assert f'action="{own}/approve"' not in asked.text
    assert (alone.status_code, "general_ledger.same_person" in alone.text) == (403, True)
    assert "Done." in agreed.text
    assert f"Closed through {day}." in agreed.text
    assert str(closed.closed_through) == day
    assert "Done." in opened.text
    assert f"Closed through {day}." not in opened.text


async def test_a_request_can_be_taken_back_or_rejected(
    stage: Stage, finance: Reader, day: str
) -> None:
    await finance.get(DAYS)
    for ending in ("withdraw", "reject"):
        asked = await finance.follow(
            await finance.send(DAYS, what="close", day=day, reason="end of day")
        )
        request = re.search(r"day-requests/(gdr_\w+)/withdraw", asked.text)
        assert request is not None
        own = f"/console/ledger/{BOOK}/day-requests/{request[1]}/{ending}"
        if ending == "withdraw":
            ended = await finance.follow(await finance.send(own))
        else:
            async with reader(stage, await hire(stage, Role.FINANCE, "zhao.liu")) as second:
                await second.get(DAYS)
                ended = await second.follow(await second.send(own))
        assert {"withdraw": "was taken back", "reject": "Rejected;"}[ending] in ended.text
        await finance.get(DAYS)


async def test_what_is_no_day_or_book_is_refused(finance: Reader) -> None:
    await finance.get(DAYS)
    for path in (
        "/console/ledger/x/days",
        "/console/ledger/0/days",
        f"{DAYS}/yesterday",
        f"{DAYS}/2026-11-21/vouchers/x",
    ):
        assert (await finance.get(path)).status_code == 400
    assert (await finance.get("/console/ledger/77/days")).status_code == 404
    assert (await finance.get(f"{DAYS}/2020-01-01/vouchers/9")).status_code == 404
    await finance.get(DAYS)
    assert (await finance.send(DAYS, what="burn", day="2026-11-21", reason="x")).status_code == 400
    await finance.get(DAYS)
    assert (await finance.send(DAYS, what="close", day="2999-01-01", reason="x")).status_code == 422


async def test_the_pages_speak_chinese(stage: Stage, day: str) -> None:
    async with reader(stage, await hire(stage, Role.FINANCE, "wang.wu")) as one:
        chinese = {"accept-language": "zh-CN"}
        days = await one.get(DAYS, **chinese)
        own = await one.get(f"{DAYS}/{day}", **chinese)

    assert "会计日" in days.text
    assert "试算平衡表" in own.text
    assert "其他应付款—应付商户款" in own.text
