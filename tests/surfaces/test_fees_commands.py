"""`tongbao fees` at the command line: quoted, tried, proposed, verified."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.surfaces.commands import Cli
from tongbao.infra.db import Db

DRAFT = """
refund_returns_fee = false
[[lines]]
channel = "wechat_pay"
pay_mode = "qr"
rate_ppm = 6000
steps = [{ rate_ppm = 3000, amount_from = 100000, fee_max = 500 }]
promotions = [{ rate_ppm = 0, from_day = 2020-01-01, until_day = 2020-02-01 }]
"""


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
    }


async def test_a_draft_is_quoted_tried_proposed_and_fees_are_verified(
    cli: Cli, db: Db, tmp_path: Path
) -> None:
    merchant = (await cli("--json", "merchant", "open", "--name", "店")).json["merchant"]
    file, broken = tmp_path / "draft.toml", tmp_path / "broken.json"
    file.write_text(DRAFT)
    broken.write_text(json.dumps({"lines": "none"}))
    asked = ("fees", "quote", merchant, "wechat_pay", "qr")

    quoted = await cli("--json", *asked, "200000", "--file", str(file))
    nothing = await cli(*asked, "100")
    unreadable = await cli(*asked, "100", "--file", str(broken))
    tried = await cli("--json", "fees", "preview", merchant, str(file), "--month", "2026-10")
    proposed = await cli(
        *("--json", "fees", "propose", merchant, str(file), "--mode", "live"),
        *("--because", "the new contract"),
    )
    live = await cli(
        *("--json", "merchant", "prices", merchant, "--mode", "live"),
        *("--line", "wechat_pay", "qr", "6000"),
    )
    shared = await cli(
        *("--json", "fees", "shares", merchant, "--max-ppm", "500000", "--because", "agreed"),
    )
    verified = await cli("--json", "fees", "verify", "--month", "2026-11")
    neither = await cli("fees", "verify")

    assert quoted.code == 0, quoted.err
    assert (quoted.json["fee"], quoted.json["basis"]) == (500, "step 1")
    assert "price.not_agreed" in nothing.err
    assert "price.draft_unreadable" in unreadable.err
    assert tried.code == 0, tried.err
    for each in (proposed, live, shared):
        assert each.json["approval"].startswith("apv_"), each
    assert '"differences":0' in verified.out
    assert neither.code == 2
    states = await db.fetch("select act, state from approval order by made_at", ())
    assert [(row["act"], row["state"]) for row in states] == [
        ("price_plan.change", "withdrawn"),
        ("price_plan.change", "proposed"),
        ("split_terms.set", "proposed"),
    ]
    assert await db.fetch("select 1 from price_plan", ()) == []
