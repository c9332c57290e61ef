"""The console's pages of onboarding: found, read, decided by two, pictures shown and noted."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from itertools import count

import pytest

from tests.onboarding.applicants import Applicant
from tests.stage import Stage
from tests.surfaces.visitors import Reader, hire, reader
from tongbao.controls.approvals.queries import open_approval
from tongbao.infra.audit import entries_of_subject
from tongbao.kernel.ids import show
from tongbao.parties.identity.model import Role
from tongbao.parties.onboarding.openings import OPEN

_people = count(1)
ROW = re.compile(r'<tr id="(app_\w+)"')
PERSONS = (
    "张三丰",
    "11010519491231002X",
    "13800001234",
    "zhang@tea.example",
    "6222020200112233445",
)


@pytest.fixture
async def admin(shared_stage: Stage) -> AsyncIterator[Reader]:
    person = await hire(shared_stage, login=f"reviewer.{next(_people)}")
    async with reader(shared_stage, person) as one:
        yield one


@pytest.fixture
def applicant(shared_stage: Stage) -> Applicant:
    return Applicant(shared_stage)


async def test_the_list_narrows_by_its_filters(applicant: Applicant, admin: Reader) -> None:
    submitted = await applicant.submitted(firm={"legal_name": "列表 <b>茶</b>"})
    draft = await applicant.apply()

    for query, wanted in (
        (f"q={submitted['application_no']}", [submitted["id"]]),
        (f"q={submitted['firm']['credit_code']}", [submitted["id"]]),
        (f"q={draft['application_no']}&status=submitted", []),
        (f"q={draft['application_no']}&status=draft&mode=sandbox", [draft["id"]]),
        (f"q={draft['application_no']}&mode=live", []),
        ("since=2000-01-01&until=2000-01-02", []),
    ):
        page = await admin.get(f"/console/applications?{query}")
        assert ROW.findall(page.text) == wanted, query
    assert "列表 &lt;b&gt;" in (await admin.get("/console/applications")).text
    for query in ("status=lost", "since=yesterday", "q=app_x"):
        assert (await admin.get(f"/console/applications?{query}")).status_code == 400


async def test_an_application_shows_its_checks_and_no_person(
    applicant: Applicant, admin: Reader
) -> None:
    made = await applicant.opened()

    page = await admin.get(f"/console/applications/{made['id']}")

    assert page.status_code == 200
    assert not [secret for secret in PERSONS if secret in page.text]
    assert made["firm"]["credit_code"] in page.text
    standing = await admin.get(f"/console/merchants/{made['merchant_id']}/standing")
    assert made["firm"]["short_name"] in standing.text


async def test_an_operator_proposes_and_does_not_decide(
    applicant: Applicant, admin: Reader, shared_stage: Stage
) -> None:
    made = await applicant.submitted()
    version = str((await applicant.row(made)).version)
    own = f"/console/applications/{made['id']}"

    await admin.get(own)
    fields = admin.form(f"{own}/open").fields | {"reason": "seen the shop"}
    sent = {
        "reasonless": fields | {"reason": ""},
        "stale": fields | {"version": "1"},
        "malformed": fields | {"version": "one"},
        "foreign": fields | {"form_token": "x"},
    }
    statuses = [(await admin.post(f"{own}/open", each)).status_code for each in sent.values()]
    proposed = await admin.post(f"{own}/open", fields)

    assert fields["version"] == version
    assert statuses == [400, 409, 400, 403]
    assert proposed.status_code == 303
    assert await open_approval(shared_stage.db, OPEN, made["id"]) is not None
    assert "seen the shop" in (await admin.get(own)).text
    assert (await applicant.read(made))["status"] == "submitted"


async def test_a_picture_is_shown_to_who_reviews_and_each_look_is_noted(
    applicant: Applicant, admin: Reader, shared_stage: Stage
) -> None:
    made = await applicant.submitted()
    row = await applicant.row(made)
    [one] = [each for each in made["documents"] if each["kind"] == "store_front"]
    path = f"/console/applications/{made['id']}/documents/{one['id']}"

    seen = await admin.get(path)
    async with reader(shared_stage, await hire(shared_stage, Role.VIEWER, "viewer.1")) as viewer:
        refused = await viewer.get(path)

    assert seen.headers["content-type"] == "image/png"
    assert seen.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert seen.headers["x-content-type-options"] == "nosniff"
    assert refused.status_code == 403
    acts = await entries_of_subject(shared_stage.db, show("app", row.id))
    assert [each.action for each in acts].count("application.document_seen") == 1
