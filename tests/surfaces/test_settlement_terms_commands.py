"""Settlement terms at the command line: shown, proposed for another to approve, held at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.surfaces.commands import Cli
from tongbao.infra.db import Db


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
    }


async def test_terms_are_proposed_and_money_is_held_at_the_command_line(cli: Cli, db: Db) -> None:
    opened = await cli("--json", "merchant", "open", "--name", "Tea & Co")
    merchant = opened.json["merchant"]
    terms = ("--json", "settlement", "terms")
    why = ("--mode", "sandbox", "--reason", "as agreed in May")

    asked = await cli(
        *terms, "propose", merchant, "--from", "2030-01-01", "--set", "delay_days=3", *why
    )
    held = await cli(*terms, "hold", merchant, "--amount", "500", *why)
    lifted = await cli(*terms, "lift", held.json["hold"], "--reason", "it is over")

    listed = await cli("--json", "approvals", "list")
    waiting = {each["approval"] for each in listed.json}
    assert waiting == {asked.json["approval"], lifted.json["approval"]}
    [now] = (await cli(*terms, "show", merchant, "--mode", "sandbox")).json
    assert now["delay_days"] == 1  # nobody else has said so yet
    [hold] = (await cli(*terms, "holds", merchant, "--mode", "sandbox")).json
    assert (hold["amount"], hold["lifted"]) == (500, False)
    wrong = await cli(*terms, "propose", merchant, "--from", "2030-01-01", "--set", "x=3", *why)
    assert wrong.code == 2
