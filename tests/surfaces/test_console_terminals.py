"""Terminals and the reserve in the console and at the command line."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest

from tests.stage import Stage, new_number
from tests.surfaces.commands import Cli
from tests.surfaces.visitors import Reader, hire, reader
from tongbao.clearing.reserve import custody, queries
from tongbao.clearing.reserve.custody import BALANCE, EXPLAIN, OPEN
from tongbao.clearing.reserve.model import ACCOUNT, GAP, Source
from tongbao.controls.approvals.approvals import approve
from tongbao.controls.approvals.model import Act
from tongbao.controls.approvals.queries import open_approval
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.model import Role
from tongbao.parties.terminals import inventory
from tongbao.parties.terminals.limits import CAPS, meter_of
from tongbao.parties.terminals.model import Parameters, Terminal, TerminalState
from tongbao.parties.terminals.parameters import set_own_parameters

_people = count(1)
ROW = re.compile(r'<tr id="(trm_\w+)"')
EVERYTHING = frozenset({"terminals_act", "settlement_act"})


@pytest.fixture
async def admin(shared_stage: Stage) -> AsyncIterator[Reader]:
    person = await hire(shared_stage, login=f"field.{next(_people)}")
    async with reader(shared_stage, person) as one:
        yield one


@pytest.fixture
async def terminal(shared_stage: Stage) -> Terminal:
    serial = f"SN{new_number()[:20].upper()}"
    async with shared_stage.db.begin("test") as tx:
        await inventory.import_serials(tx, f"serial\n{serial}".encode(), name="b", model="S<1>")
        return await inventory.terminal_with_serial(tx, serial)


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
    }


async def agreed(stage: Stage, act: Act, subject: str) -> None:
    """Have somebody else approve what was proposed, and let it happen."""
    asked = await open_approval(stage.db, act, subject)
    assert asked is not None
    async with stage.db.begin("opr_other") as tx:
        acts = stage.platform.approvals.acts
        await approve(tx, acts, asked.id, digest=asked.digest.hex(), may=EVERYTHING)
    await stage.idle()


async def test_a_terminal_is_found_given_out_and_taken_back(
    shared_stage: Stage, admin: Reader, terminal: Terminal
) -> None:
    own = f"/console/terminals/{show('trm', terminal.id)}"
    merchant = show("mch", shared_stage.shop.merchant.id)
    listed = await admin.get(f"/console/terminals?q={terminal.serial_number}&status=stock")
    assert ROW.findall(listed.text) == [show("trm", terminal.id)]
    assert "S&lt;1&gt;" in listed.text
    assert (await admin.get("/console/terminals?status=lost")).status_code == 400

    page = await admin.get(own)
    await admin.follow(await admin.send(f"{own}/assign", merchant=merchant, mode="sandbox"))
    async with shared_stage.db.begin("test") as tx:
        for volume in (3, 5):
            told = Parameters(volume=volume)
            await set_own_parameters(tx, terminal.id, told, why="<b>loud</b>")
    page = await admin.get(own)
    assert "&lt;b&gt;loud" in page.text
    await admin.follow(await admin.send(f"{own}/roll-back"))
    assert (await inventory.terminal_with_id(shared_stage.db, terminal.id)).parameters_version == 3

    moved = await admin.send(f"{own}/move", to="retired", because="broken")
    page = await admin.follow(moved)
    after = await inventory.terminal_with_id(shared_stage.db, terminal.id)
    assert after.state is TerminalState.RETIRED
    assert f'action="{own}/move"' not in page.text


async def test_a_cap_is_two_peoples(shared_stage: Stage, admin: Reader, terminal: Terminal) -> None:
    db, merchant = shared_stage.db, shared_stage.shop.merchant
    async with db.begin("test") as tx:
        await inventory.assign_terminal(tx, terminal.id, merchant, Mode.SANDBOX)
    own = f"/console/terminals/{show('trm', terminal.id)}"
    await admin.get(own)
    given = {"each": "500.00", "count": "", "amount": "", "reason": "a new merchant"}

    wrong = await admin.send(f"{own}/caps", **{**given, "each": "-1"})
    sent = await admin.send(f"{own}/caps", **given)
    meter = await meter_of(db, merchant.book(Mode.SANDBOX), terminal.id)
    await agreed(shared_stage, CAPS, show("trm", terminal.id))

    assert (wrong.status_code, sent.status_code, meter.cap_each) == (400, 303, None)
    meter = await meter_of(db, merchant.book(Mode.SANDBOX), terminal.id)
    assert meter.cap_each == 50_000
    assert "500.00" in (await admin.get(own)).text


async def test_a_viewer_sees_and_does_not_act(shared_stage: Stage, terminal: Terminal) -> None:
    person = await hire(shared_stage, Role.VIEWER, login=f"viewer.{next(_people)}")
    own = f"/console/terminals/{show('trm', terminal.id)}"
    async with reader(shared_stage, person) as viewer:
        page = await viewer.get(own)
        sent = await viewer.post(f"{own}/move", {"to": "retired", "because": "x"})
        reserve = await viewer.get("/console/reserve")

    assert (page.status_code, reserve.status_code, sent.status_code) == (200, 200, 403)
    assert f"{own}/move" not in page.text
    assert "/console/reserve/accounts" not in reserve.text


async def test_a_day_of_the_reserve_is_proved_explained_and_shown(
    shared_stage: Stage, admin: Reader
) -> None:
    stage, db = shared_stage, shared_stage.db
    day = business_date(db.clock.now())
    await stage.wallet_code(10_000)
    home = "/console/reserve?mode=sandbox"
    assert (await admin.get(home)).status_code == 200
    given = {"bank": "Bank <1>", "number": "62221234", "opened_on": str(day), "reason": "the first"}
    sent = await admin.send("/console/reserve/accounts", **given, purpose="customers")
    await admin.follow(sent)
    await agreed(stage, OPEN, "sandbox/CNY/Bank <1>/1234")
    [account] = await custody.custody_accounts(db, Mode.SANDBOX)
    await stage.advance(days=1)
    async with db.begin("ingest") as tx:
        await custody.record_statement(
            tx, account.id, day, 9_999, source=Source.MT940, digest=bytes(32), name="x.sta"
        )

    own = f"/console/reserve/sandbox/{day}"
    await admin.get(own)
    page = await admin.follow(await admin.send(f"{own}/prove"))
    assert "Short" in page.text
    assert "it holds" in page.text
    home_page = await admin.get(home)
    assert "Bank &lt;1&gt;" in home_page.text
    [gap] = await queries.open_gaps(db, Mode.SANDBOX)
    shown = show(GAP, gap.id)
    explain = f"/console/reserve/gaps/{shown}"
    await admin.send(explain, reason="the bank's fee of the first day")
    await agreed(stage, EXPLAIN, shown)
    assert await queries.open_gaps(db, Mode.SANDBOX) == []
    assert "the bank&#39;s fee" in (await admin.get(own)).text

    await admin.get(home)
    fields = {"day": str(day), "amount": "100.00", "reference": "page 3", "reason": "corrected"}
    await admin.send("/console/reserve/balances", **fields)
    shown = show(ACCOUNT, account.id)
    await agreed(stage, BALANCE, f"{shown}/{day}")
    await admin.get(own)
    page = await admin.follow(await admin.send(f"{own}/prove"))
    assert "Covered" in page.text
    for path in ("/console/reserve/other/2026-01-01", "/console/reserve/live/yesterday"):
        assert (await admin.get(path)).status_code == 400


async def test_commands_take_terminals_in_and_out(cli: Cli, tmp_path: Path) -> None:
    box = tmp_path / "box.csv"
    box.write_text("serial\nAA01\nAA02\n")
    merchant = (await cli("--json", "merchant", "open", "--name", "Tea")).json["merchant"]

    taken = await cli("--json", "terminals", "import", str(box), "--name", "b", "--model", "S1")
    given = await cli("--json", "terminals", "assign", "aa01", merchant)
    why = ("--because", "opening")
    said = ("--set", "volume=3", "--set", "speaks=false", "--set", "idle_text=12")
    made = await cli("--json", "terminals", "template", "bars", *said, *why)
    bad = await cli("terminals", "template", "bars", "--set", "volume=11", *why)
    follows = await cli("--json", "terminals", "follow", "AA01", "bars", *why)
    moved = await cli("--json", "terminals", "move", "AA02", "stolen", *why)
    listed = await cli("--json", "terminals", "list", "--state", "bound")

    assert taken.json["terminals"] == 2
    assert given.json["state"] == "bound"
    assert (made.json["volume"], made.json["speaks"], made.json["idle_text"]) == (3, False, "12")
    assert "terminal.parameter_unknown" in bad.err
    assert follows.json["parameters_version"] == 1
    assert moved.json["state"] == "stolen"
    assert [each["serial"] for each in listed.json] == ["AA01"]


async def test_commands_prove_and_verify(cli: Cli) -> None:
    day = str(business_date(real_now()) - timedelta(days=1))

    opened = await cli(
        "--json", "reserve", "open", "--bank", "Bank", "--number", "62221234", "--since", day,
        "--reason", "the first account",
    )  # fmt: skip
    proved = await cli("--json", "reserve", "prove", "--day", day)
    gaps = await cli("--json", "reserve", "gaps")
    unknown = await cli("reserve", "verify", "rsp_00000000000000000000000000")
    none = await cli("--json", "reserve", "accounts", TONGBAO_LICENCE="payment_institution")

    assert opened.json["approval"].startswith("apv_")
    assert (proved.code, proved.json, gaps.json, none.json) == (0, [], [], [])
    assert "reserve.proof_not_found" in unknown.err
