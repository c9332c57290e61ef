"""`tongbao sources` at the command line: how files are read and matched takes two people."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from tests.surfaces.commands import Cli
from tests.surfaces.test_console_sources import LAYOUT, RULE, listing
from tongbao.clearing.recon_rules.rules import bound
from tongbao.clearing.sources.ingest import sources
from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.controls.approvals.model import Approvals, acts_of
from tongbao.infra.db import Db
from tongbao.infra.tasks import Lease
from tongbao.kernel.ids import new_id, parse

DAY = date(2026, 11, 20)
WHY = ("--reason", "a new partner")


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
    }


async def agree(db: Db, shown: str) -> None:
    """A second person says yes, and the worker does it."""
    approval_id, acts = parse("apv", shown), acts_of(*bound(db))
    [asked] = await db.fetch("select digest from approval where id = $1", (approval_id,))
    async with db.begin("operator:bert") as tx:
        await approve(tx, acts, approval_id, digest=asked["digest"].hex(), may={"breaks_act"})
    await run_apply(Approvals(db, acts), ApplyApproval(approval_id), Lease(new_id(), 1))


async def test_a_source_and_a_rule_begin_with_two_people(cli: Cli, db: Db, tmp_path: Path) -> None:
    layout, rule, file = (tmp_path / each for each in ("layout.toml", "rule.toml", "list.txt"))
    layout.write_text(LAYOUT)
    rule.write_text(RULE.format(name="both", left="left.side", right="right.side"))
    file.write_bytes(listing(DAY, "n1|1.00"))
    begins = ("--from", "2026-01-01")

    for name in ("left.side", "right.side"):
        asked = await cli(
            *("--json", "sources", "add", name, "--layout", str(layout)), *begins, *WHY
        )
        assert asked.code == 0, asked.err
        assert name not in {each.name for each in await sources(db)}
        early = await cli(*("sources", "take", str(file), "--source", name, "--day", str(DAY)))
        assert "source.unknown" in early.err
        await agree(db, asked.json["approval"])
        taken = await cli(
            *("--json", "sources", "take", str(file), "--source", name, "--day", str(DAY))
        )
        assert taken.code == 0, taken.err

    proposed = await cli("--json", "sources", "rule", str(rule), *begins, *WHY)
    unknown = await cli("sources", "match", "both", "--day", str(DAY))
    assert "matching.rule_unknown" in unknown.err
    await agree(db, proposed.json["approval"])
    matched = await cli("--json", "sources", "match", "both", "--day", str(DAY))
    assert matched.code == 0, matched.err
    assert [each["matched"] for each in matched.json] == [1]
