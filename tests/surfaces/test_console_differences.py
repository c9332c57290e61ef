"""The calendar of days and the differences as cases, as the people at the console see them."""

from __future__ import annotations

import csv
import io
from datetime import date

import pytest

from tests.stage import Stage
from tests.surfaces.test_console_clearing import Closed, closed, finance
from tests.surfaces.visitors import Reader, hire, reader
from tongbao.clearing.reconciliation.breaks import Comparison, Found, record_comparison
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import balance_of
from tongbao.parties.identity.model import Role
from tongbao.parties.merchants.merchants import SANDBOX_BOOK

__all__ = ["closed", "finance"]
CASES = "/console/differences"


async def test_the_calendar_shows_each_day_of_each_account_in_its_colour(
    closed: Closed, finance: Reader
) -> None:
    shown = (await finance.get(f"/console/reconciliation/calendar?month={closed.day:%Y-%m}")).text
    later = await finance.get("/console/reconciliation/calendar?month=2026-13")

    assert f'href="{closed.path}" aria-label="{closed.day}: somebody has to act, 3"' in shown
    assert f'aria-label="{closed.day}: everything agrees"' in shown  # Alipay's
    assert (later.status_code, "console.case_filter_malformed" in later.text) == (400, True)


async def test_a_case_is_taken_posted_by_two_people_and_closed(
    closed: Closed, finance: Reader
) -> None:
    stage: Stage = closed.stage
    target = (await closed.breaks())["missing_at_platform"]
    own = f"{CASES}/{target}"
    page = (await finance.get(f"{CASES}?class=missing_at_platform&day={closed.day}")).text
    assert own in page
    assert "Hold in suspense and find its owner" in page
    assert (await closed.breaks())["missing_at_channel"] not in page

    case = await finance.get(own)
    for heading in ("Bill", "We", "Ledger"):
        assert f">{heading}</h2>" in case.text
    mine = await finance.follow(await finance.send(f"{own}/take"))
    asked = await finance.follow(await finance.send(f"{own}/post", reason="none of ours"))
    before = await balance_of(stage.db, SANDBOX_BOOK, AccountKey("suspense", "CNY"))
    async with reader(stage, await hire(stage, Role.FINANCE, "li.na")) as second:
        inbox = str(asked.url.path)
        seen = await second.get(inbox)
        await second.follow(await second.send(f"{inbox}/approve"))
    await stage.idle()

    after = await balance_of(stage.db, SANDBOX_BOOK, AccountKey("suspense", "CNY"))
    done = (await finance.get(own)).text
    assert "The case is yours." in mine.text
    assert "渠道差错挂账" in seen.text or "Post a difference with a channel" in seen.text
    assert after.posted - before.posted == 100
    assert 'action="' + own not in done
    assert "Closed" in done


async def test_differences_are_exported_and_no_cell_is_a_formula(
    stage: Stage, finance: Reader
) -> None:
    account = new_id()
    async with stage.db.begin("tests") as tx:
        await record_comparison(
            tx,
            Comparison(
                account_id=account, channel="rule:hostile", mode=Mode.SANDBOX,
                day=date(2020, 1, 2), currency="CNY", sha256=None, row_count=1, matched_count=0,
                money_in=1, money_out=0, waiting_count=0,
                found=[Found('=cmd|"/c calc"!A1', "missing_at_platform", 1, None, 2)],
            ),
        )  # fmt: skip

    reply = await finance.get(f"{CASES}.csv?day=2020-01-02")
    [row] = csv.DictReader(io.StringIO(reply.content.decode("utf-8-sig")))
    page = await finance.get(f"{CASES}?day=2020-01-02")

    assert row["number"].startswith("'=cmd")
    assert "<code>=cmd|&#34;/c calc" in page.text


@pytest.mark.parametrize("query", ["class=none", "state=x", "account=chn_1", "day=tomorrow"])
async def test_a_filter_that_is_none_is_refused_by_name(finance: Reader, query: str) -> None:
    reply = await finance.get(f"{CASES}?{query}")

    assert (reply.status_code, "console.case_filter_malformed" in reply.text) == (400, True)


async def test_who_may_only_look_cannot_take_or_post(closed: Closed) -> None:
    stage = closed.stage
    target = (await closed.breaks())["amount_differs"]
    async with reader(stage, await hire(stage, Role.OPERATOR)) as operator:
        page = await operator.get(f"{CASES}/{target}")
        token = operator.form("/console/logout").fields["form_token"]
        for act in ("take", "post"):
            reply = await operator.post(
                f"{CASES}/{target}/{act}", {"form_token": token, "reason": "let me"}
            )
            assert reply.status_code == 403

    assert "/post" not in page.text
