"""Four eyes at the command line: anybody at the shell may propose, operators decide."""

from __future__ import annotations

from pathlib import Path

import pyotp
import pytest

from tests.surfaces.commands import Cli
from tests.surfaces.visitors import PASSWORD
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.parties.identity.model import Role
from tongbao.parties.identity.operators import create_operator


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
    }


@pytest.fixture
async def book(db: Db) -> int:
    """A book that is open."""
    ledger = Ledger(db, Licence.PAYMENT_INSTITUTION)
    await ledger.open_book(2, actor="tests")
    await ledger.close()
    return 2


async def hire(db: Db, folder: Path, role: Role, login: str) -> pyotp.TOTP:
    async with db.begin("tests") as tx:
        keyring = Keyring.from_file(folder / "kek")
        made = await create_operator(
            tx, keyring, login=login, name="李娜", role=role, password=PASSWORD
        )
    return pyotp.TOTP(made.totp_secret.reveal())


async def test_money_is_adjusted_listed_and_decided_by_an_operator(
    cli: Cli, db: Db, tmp_path: Path, book: int
) -> None:
    finance = await hire(db, tmp_path, Role.FINANCE, "li.na")
    viewer = await hire(db, tmp_path, Role.VIEWER, "viewer")
    where = ("--book", str(book), "--amount", "12.34", "--reason", "an unknown receipt")
    made = await cli(
        "--json", "suspense", "adjust", *where, "--debit", "bank", "--credit", "suspense"
    )
    assert made.json["state"] == "proposed"
    asked = made.json["approval"]
    listed = await cli("--json", "approvals", "list")
    assert [each["approval"] for each in listed.json] == [asked]
    shown = (await cli("--json", "approvals", "show", asked)).json
    assert shown[0]["reason"] == "an unknown receipt"
    assert "CNY 12.34" in shown[-1]["after"]

    decide = ("approvals", "approve", asked, "--digest", shown[0]["digest"])
    wrong = await cli(*decide, "--as", "li.na", given=f"not the password\n{finance.now()}\n")
    assert (wrong.code, "operator.login_refused" in wrong.err) == (1, True)
    not_theirs = await cli(*decide, "--as", "viewer", given=f"{PASSWORD}\n{viewer.now()}\n")
    assert (not_theirs.code, "approval.checker_not_allowed" in not_theirs.err) == (1, True)
    agreed = await cli("--json", *decide, "--as", "li.na", given=f"{PASSWORD}\n{finance.now()}\n")
    assert (agreed.code, '"state":"approved"' in agreed.out) == (0, True), agreed.err
    assert PASSWORD not in agreed.out + agreed.err
    assert await db.fetch("select 1 from operator_session", ()) == []

    for kind, owner in (("merchant", "mch_1"), ("channel", "")):
        refused = await cli(
            *("suspense", "resolve", made.json["about"].replace("adj", "sus")),
            *("--book", str(book), "--to", kind, "--owner", owner, "--reason", "a letter"),
        )
        assert refused.code == 1
    assert (await cli("--json", "suspense", "list")).json == []
    assert (await cli("--json", "suspense", "list", "--book", str(book))).json == []


async def test_a_calendar_file_is_shown_then_proposed_then_rejected(
    cli: Cli, db: Db, tmp_path: Path, book: int
) -> None:
    del book
    finance = await hire(db, tmp_path, Role.FINANCE, "li.na")
    file = tmp_path / "2027.csv"
    file.write_text("day,working,name\n2027-01-01,no,元旦\n", encoding="utf-8")
    source = ("calendar", "import", str(file), "--source", "国办发明电〔2026〕9号")
    seen = await cli("--json", *source)
    assert [each["after"] for each in seen.json] == ["holiday"]
    assert (await cli("--json", "approvals", "list")).json == []
    made = await cli("--json", *source, "--reason", "the year to come")
    asked = made.json[-1]["approval"]
    rejected = await cli(
        *("--json", "approvals", "reject", asked, "--reason", "not published yet"),
        *("--as", "li.na"),
        given=f"{PASSWORD}\n{finance.now()}\n",
    )
    assert '"state":"rejected"' in rejected.out, rejected.err
    over = await cli("--json", "approvals", "list", "--all", "--act", "calendar.change")
    assert [each["state"] for each in over.json] == ["rejected"]


async def test_days_can_be_asked_for(cli: Cli, book: int) -> None:
    del book
    days = (await cli("--json", "calendar", "show", "--year", "2026")).json
    assert {name: days[-1][name] for name in ("day", "working")} == {
        "day": "2026-10-10",
        "working": True,
    }
    asked = await cli("--json", "calendar", "day", "2026-10-01", "--after", "2")
    assert asked.json == {"day": "2026-10-01", "working": False, "after": "2026-10-09"}
