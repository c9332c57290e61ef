"""`tongbao audit`: what happened to a thing, and the proofs that nothing was changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.surfaces.commands import Cli


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
    }


async def test_an_act_is_found_proved_and_verified(cli: Cli) -> None:
    merchant = (await cli("--json", "merchant", "open", "--name", "店")).json["merchant"]
    await cli("merchant", "suspend", merchant, "--because", "no answer")

    of = await cli("--json", "audit", "of", merchant)
    first, *_ = of.json
    assert first["origin"] == "command line"
    assert {each["action"] for each in of.json} >= {"merchant.opened", "merchant.suspended"}

    early = await cli("audit", "prove", first["entry"])
    assert "audit.entry_unproven" in early.err
    points = await cli("--json", "audit", "checkpoints")
    [point] = points.json
    assert point["number"] == 1
    proof = json.loads((await cli("audit", "prove", first["entry"])).out)
    assert json.loads(proof["content"])["subject"] == merchant
    await cli("merchant", "reinstate", merchant, "--because", "they called")
    await cli("audit", "checkpoints")
    grown = json.loads((await cli("audit", "consistency", "1", "2")).out)
    assert grown["object"] == "tongbao.audit_consistency/1"
    whole = await cli("--json", "audit", "verify")
    assert (whole.code, whole.json["breaches"]) == (0, 0)
