"""The inbox, the suspense desk and the calendar in the console, as the people there see them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from tests.stage import Stage
from tests.surfaces.visitors import Reader, hire, reader
from tongbao.controls.approvals.model import Approval
from tongbao.controls.approvals.queries import ApprovalFilter, approval_with_id, list_approvals
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import parse
from tongbao.ledger.general.days import request_day
from tongbao.ledger.general.model import DayAction
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import balance_of
from tongbao.parties.identity.model import Role

INBOX, SUSPENSE, CALENDAR = "/console/inbox", "/console/suspense", "/console/calendar"
BOOK = 2  # the sandbox's
FILE = "day,working,name\n2027-01-01,no,元旦\n2027-01-03,yes,调休\n"


class Three:
    """Two people of finance and one who only looks."""

    def __init__(self, first: Reader, second: Reader, viewer: Reader) -> None:
        self.first = first
        self.second = second
        self.viewer = viewer


@pytest.fixture(scope="module")
async def people(module_stage: Stage) -> AsyncIterator[Three]:
    stage = module_stage
    first, second = (
        await hire(stage, Role.FINANCE, "li.na"),
        await hire(stage, Role.FINANCE, "wu.min"),
    )
    viewer = await hire(stage, Role.VIEWER, "just.looking")
    async with (
        reader(stage, first) as one,
        reader(stage, second, language="zh") as two,
        reader(stage, viewer) as three,
    ):
        yield Three(one, two, three)


async def adjust(visitor: Reader, **changes: str) -> Any:
    """Propose that money came to the bank from somebody nobody knows."""
    await visitor.get(SUSPENSE)
    fields = {"book": str(BOOK), "currency": "CNY", "amount": "12.34", "debit": "bank"}
    fields |= {"credit": "suspense", "reason": "an unknown receipt", **changes}
    return await visitor.send("/console/adjustments", **fields)


async def newest(stage: Stage) -> Approval:
    return (await list_approvals(stage.db, ApprovalFilter(), limit=1)).items[0]


def to_decide(page: str) -> int:
    """The number beside the inbox in the navigation."""
    found = re.search(r'aria-label="(\d+) 项待您复核"', page)
    return int(found[1]) if found else 0


async def approve(visitor: Reader, own: str) -> str:
    await visitor.get(own)
    return str((await visitor.follow(await visitor.send(f"{own}/approve", note="checked"))).text)


async def test_a_proposal_goes_through_the_inbox_by_two_people(
    shared_stage: Stage, people: Three
) -> None:
    stage, first, second = shared_stage, people.first, people.second
    there = AccountKey("suspense", "CNY")
    before = (await balance_of(stage.db, BOOK, there)).posted
    made = await first.follow(await adjust(first))
    own = f"{INBOX}/{(await newest(stage)).shown_id}"
    assert "Proposed. A colleague has to decide." in made.text
    assert "You proposed this." in made.text
    assert f'action="{own}/approve"' not in made.text
    assert f'action="{own}/withdraw"' in made.text
    assert "CNY 12.34" in made.text

    token = first.form("/console/logout").fields["form_token"]
    digest = re.search(r"<code>([0-9a-f]{64})</code>", made.text)
    assert digest is not None
    alone = await first.post(f"{own}/approve", {"form_token": token, "digest": digest[1]})
    assert (alone.status_code, "approval.own_proposal" in alone.text) == (403, True)

    listed = await second.get(INBOX)
    assert "手工调账" in listed.text
    waiting = to_decide(listed.text)
    assert waiting >= 1
    other = await second.get(own)
    token = second.form("/console/logout").fields["form_token"]
    differs = await second.post(f"{own}/approve", {"form_token": token, "digest": "0" * 64})
    assert (differs.status_code, "approval.terms_differ" in differs.text) == (409, True)
    assert "变更内容" in other.text
    assert "已同意，正在执行。" in await approve(second, own)

    await stage.idle()
    done = await first.get(own)
    assert ">done<" in done.text
    assert "checked" in done.text
    assert (await balance_of(stage.db, BOOK, there)).posted == before + 1234
    assert to_decide((await second.get(INBOX)).text) == waiting - 1
    assert (await newest(stage)).shown_id in (await second.get(f"{INBOX}?state=applied")).text


async def test_money_in_suspense_is_given_a_home_on_its_page(
    shared_stage: Stage, people: Three
) -> None:
    stage, first, second = shared_stage, people.first, people.second
    await first.follow(await adjust(first, amount="5.00"))
    asked = await newest(stage)
    await approve(second, f"{INBOX}/{asked.shown_id}")
    await stage.idle()

    page = await first.get(f"{SUSPENSE}?book={BOOK}&currency=CNY")
    item = asked.subject.replace("adj_", "sus_")
    action = f"{SUSPENSE}/{BOOK}/CNY/{item}"
    assert item in page.text
    assert "to the fen" in page.text
    merchant = f"mch_{asked.subject[4:]}"
    wrong = [
        ({"home": "merchant", "home_owner": merchant}, "suspense.home_wrong"),
        ({"home": "merchant", "home_owner": "nobody"}, "console.suspense_form_malformed"),
        ({"home": "nowhere"}, "console.suspense_form_malformed"),
        ({"amount": "5.001", "home": "fee"}, "console.suspense_form_malformed"),
        ({"amount": "-1", "home": "fee"}, "suspense.amount_wrong"),
        ({"amount": "500", "home": "fee"}, "suspense.amount_wrong"),
    ]
    for fields, code in wrong:
        await first.get(f"{SUSPENSE}?book={BOOK}")
        refused = await first.send(action, reason="a letter", **fields)
        assert code in refused.text, (fields, refused.text)
    await first.get(f"{SUSPENSE}?book={BOOK}")
    made = await first.follow(await first.send(action, home="fee", reason="a letter"))
    assert "CNY 5.00" in made.text
    page = await first.get(f"{SUSPENSE}?book={BOOK}")
    assert "What is to become of it is proposed." in page.text
    assert f'action="{action}"' not in page.text

    resolution = await newest(stage)
    await approve(second, f"{INBOX}/{resolution.shown_id}")
    await stage.idle()
    assert item not in (await first.get(f"{SUSPENSE}?book={BOOK}")).text
    assert (await approval_with_id(stage.db, resolution.id)).state == "applied"


async def test_late_money_is_kept_from_going_back_on_its_page(
    shared_stage: Stage, people: Three
) -> None:
    stage = shared_stage
    payment = await stage.show_qr("alipay", 777)
    await stage.customer(payment, "abandon")
    await stage.fault_of(payment, "close", "late_success:60")
    stage.fault("alipay", "refund", "not_enough", times=-1)
    await stage.close(payment)
    for _ in range(3):
        await stage.advance(seconds=45)
    action = f"{SUSPENSE}/{BOOK}/CNY/{payment['id'].replace('pay_', 'sus_')}"
    page = await people.first.get(f"{SUSPENSE}?book={BOOK}")
    assert "on its way back to them" in page.text
    assert f'href="/console/payments/{payment["id"]}"' in page.text
    assert f'action="{action}"' not in page.text
    asked = await people.first.send(f"{action}/stop", reason="sent by bank transfer")
    await people.first.follow(asked)
    approval = await newest(stage)
    await approve(people.second, f"{INBOX}/{approval.shown_id}")
    for _ in range(3):
        await stage.advance(minutes=30)
    page = await people.first.get(f"{SUSPENSE}?book={BOOK}")
    assert f'action="{action}"' in page.text
    assert await stage.given_back(payment) == []


async def test_adjustments_that_cannot_be_are_refused_at_once(people: Three) -> None:
    for fields in (
        {"amount": "one"},
        {"currency": "XXX"},
        {"book": "0"},
        {"book": "x"},
        {"debit": "wallet"},
        {"debit": "merchant_payable", "debit_owner": "mch_1"},
        {"credit": "bank"},
    ):
        refused = await adjust(people.first, **fields)
        assert refused.status_code == 400, (fields, refused.text)
    assert (await adjust(people.first, reason="x")).status_code == 400


async def test_who_may_only_look_is_offered_nothing(shared_stage: Stage, people: Three) -> None:
    await people.first.follow(await adjust(people.first, amount="1.00"))
    own = f"{INBOX}/{(await newest(shared_stage)).shown_id}"
    seen = await people.viewer.get(own)
    assert "Your role does not decide about this." in seen.text
    assert '<form method="post" action="/console/inbox' not in seen.text
    desk = await people.viewer.get(SUSPENSE)
    assert "/console/adjustments" not in desk.text
    token = people.viewer.form("/console/logout").fields["form_token"]
    for path in (f"{own}/approve", f"{own}/reject", "/console/adjustments"):
        given = {"form_token": token, "digest": "", "reason": "because"}
        refused = await people.viewer.post(path, given)
        assert refused.status_code == 403, path
    withdrawn = await people.viewer.post(f"{own}/withdraw", {"form_token": token})
    assert "approval.not_the_maker" in withdrawn.text
    await people.first.get(own)
    taken_back = await people.first.follow(await people.first.send(f"{own}/withdraw"))
    assert "Withdrawn." in taken_back.text


async def test_a_rejection_has_its_reason_and_the_list_its_filters(
    shared_stage: Stage, people: Three
) -> None:
    await people.first.follow(await adjust(people.first, amount="2.00"))
    asked = await newest(shared_stage)
    own = f"{INBOX}/{asked.shown_id}"
    await people.second.get(own)
    bare = await people.second.send(f"{own}/reject", reason="no")
    assert "approval.reason_missing" in bare.text
    await people.second.get(own)
    await people.second.follow(await people.second.send(f"{own}/reject", reason="no receipt"))
    assert "no receipt" in (await people.first.get(own)).text

    for query, is_there in (
        ("state=rejected", True),
        ("state=all&act=ledger.adjust&mine=1", True),
        ("state=applied", False),
        ("state=all&act=calendar.change", False),
    ):
        page = await people.first.get(f"{INBOX}?{query}")
        assert (asked.shown_id in page.text) is is_there, query
    mine = await people.second.get(f"{INBOX}?state=all&mine=1")
    assert asked.shown_id not in mine.text
    for query in ("state=maybe", "act=nothing", "cursor=x"):
        assert (await people.first.get(f"{INBOX}?{query}")).status_code == 400
    assert (await people.first.get(f"{INBOX}/apv_x")).status_code == 404


async def test_an_expired_proposal_says_so_and_offers_nothing(
    shared_stage: Stage, people: Three
) -> None:
    await people.first.follow(await adjust(people.first, amount="3.00"))
    own = f"{INBOX}/{(await newest(shared_stage)).shown_id}"
    shared_stage.db.clock.offset += timedelta(days=4)
    seen = await people.second.get(own)
    assert "已过期" in seen.text
    assert f'action="{own}/approve"' not in seen.text
    await shared_stage.idle()
    assert (await newest(shared_stage)).state == "expired"


async def test_the_calendar_is_changed_by_a_file_that_is_looked_at_first(
    shared_stage: Stage, people: Three
) -> None:
    first, second = people.first, people.second
    page = await first.get(f"{CALENDAR}?year=2026")
    assert "国办发明电〔2025〕7号" in page.text
    assert "Nothing is said about this year" in (await first.get(f"{CALENDAR}?year=2031")).text
    for year in ("1999", "abcd", "２０２６"):
        assert (await first.get(f"{CALENDAR}?year={year}")).status_code == 400

    await first.get(CALENDAR)
    broken = await first.send(f"{CALENDAR}/preview", source="国办发明电〔2026〕9号", file="x")
    assert "calendar.file_malformed" in broken.text
    await first.get(CALENDAR)
    shown = await first.send(f"{CALENDAR}/preview", source="国办发明电〔2026〕9号", file=FILE)
    assert "What the file would change" in shown.text
    assert shown.text.count("2027-01-0") >= 2
    first.page = shown
    made = await first.send(f"{CALENDAR}/propose", file=FILE, reason="the year to come")
    await first.follow(made)
    asked = await newest(shared_stage)
    assert "A change is proposed." in (await first.get(CALENDAR)).text
    await approve(second, f"{INBOX}/{asked.shown_id}")
    await shared_stage.idle()
    assert "元旦" in (await first.get(f"{CALENDAR}?year=2027")).text


async def test_a_cut_off_is_proposed_on_the_page(shared_stage: Stage, people: Three) -> None:
    first = people.first
    for time in ("25:00", "9:00", "aa:bb", "12:60", "00:00"):
        await first.get(CALENDAR)
        fields = {"purpose": "settlement", "time": time, "source": "an agreement"}
        refused = await first.send(
            f"{CALENDAR}/cut-off", valid_from="2027-01-01", reason="agreed", **fields
        )
        assert refused.status_code == 400, time
    await first.get(CALENDAR)
    fields = {"purpose": "settlement", "time": "23:00", "source": "an agreement"}
    made = await first.send(
        f"{CALENDAR}/cut-off", valid_from="2027-01-01", reason="agreed", **fields
    )
    page = await first.follow(made)
    assert "24:00" in page.text
    assert "23:00" in page.text
    assert (await newest(shared_stage)).act == "calendar.set_cut_off"


async def test_what_is_decided_elsewhere_is_in_the_inbox_too(
    shared_stage: Stage, people: Three
) -> None:
    day = business_date(shared_stage.db.clock.now())
    await shared_stage.idle()
    request = await request_day(
        shared_stage.db, BOOK, DayAction.CLOSE, day, reason="end of day", actor="opr_somebody"
    )
    page = await people.first.get(INBOX)
    assert "Accounting day to be closed" in page.text
    assert f"/console/ledger/{BOOK}/days#" in page.text
    assert request.reason in page.text
    assert parse("gdr", page.text.partition("days#")[2][:30]) == request.id
