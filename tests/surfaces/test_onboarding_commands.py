"""Onboarding at the command line: agents in a chain, a proposal of a merchant's standing, terms."""

from __future__ import annotations

from hashlib import sha256
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


async def test_agents_stand_in_a_chain_and_standings_are_proposed(cli: Cli, tmp_path: Path) -> None:
    merchants = [
        (await cli("--json", "merchant", "open", "--name", name)).json["merchant"]
        for name in ("upper", "lower", "shop")
    ]
    upper, lower = [
        (await cli("--json", "agent", "add", each, "--name", "a", "--share-ppm", "700000")).json
        for each in merchants[:2]
    ]
    moved = await cli(
        "--json", "agent", "terms", lower["id"], "--share-ppm", "300000", "--below", upper["id"]
    )
    circle = await cli("agent", "terms", upper["id"], "--share-ppm", "1", "--below", lower["id"])
    await cli("--json", "agent", "brought", lower["id"], merchants[2])
    listed = await cli("--json", "agent", "list")
    why = ("--reason", "asked to leave")
    proposed = await cli(
        "--json", "standing", merchants[2], "leaving", *why, "--until", "2100-01-01"
    )
    held = await cli("--json", "standing", merchants[2], "held", *why)
    text = tmp_path / "terms.txt"
    text.write_text("第一条\n", "utf-8")
    terms = await cli("--json", "application", "publish-terms", str(text), "--title", "协议")

    assert (moved.json["depth"], moved.json["below"]) == (2, upper["id"])
    assert circle.code != 0
    assert {each["id"] for each in listed.json} == {upper["id"], lower["id"]}
    assert proposed.code != 0  # further away than money is kept
    assert held.json["act"] == "merchant.standing"
    assert terms.json["sha256"] == sha256("第一条\n".encode()).hexdigest()
    assert (await cli("--json", "application", "list")).json == []
