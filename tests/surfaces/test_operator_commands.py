"""`tongbao operator`: people are added, helped and kept out from the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.surfaces.commands import Cli
from tongbao.infra import audit
from tongbao.infra.db import Db
from tongbao.parties.identity.queries import list_operators

PASSWORD = "seven quiet herons"


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
    }


async def test_people_are_added_helped_and_kept_out(cli: Cli, db: Db) -> None:
    who = ("--login", "li.na", "--name", "Li Na", "--role", "finance")
    made = (await cli("--json", "operator", "add", *who, "--password", PASSWORD)).json
    why = ("--because", "asked in person")
    new = ("operator", "set-password", "--login", "li.na", *why)
    weak = await cli(*new, "--password", "my console key")
    before = (await list_operators(db))[0]
    await cli(*new, "--password", PASSWORD + "!")
    reset = (await cli("--json", "operator", "reset-factor", "li.na", *why)).json
    await cli("operator", "disable", "li.na", *why)
    [shown] = (await cli("--json", "operator", "list")).json
    await cli("operator", "disable", "li.na", "--undo", *why)
    await cli("operator", "unlock", "li.na", *why)
    [after] = await list_operators(db)

    assert made["totp_uri"] != reset["totp_uri"]
    assert weak.code == 1
    assert before.password_hash != after.password_hash
    assert (shown["role"], shown["state"], after.state) == ("finance", "disabled", "active")
    entries = await audit.entries_of_subject(db, after.actor)
    assert {each.facts.get("because") for each in entries[1:]} == {why[1]}
    assert all(each.actor.startswith("cli:") and each.origin for each in entries)
    done = [each.action for each in entries]
    assert done == [
        "operator.created",
        "operator.password_set",
        "operator.second_factor_reset",
        "operator.disabled",
        "operator.enabled",
        "operator.unlocked",
    ]
    assert PASSWORD not in str(await audit.entries_of_subject(db, after.actor))


async def test_nobody_is_helped_who_is_not_there(cli: Cli) -> None:
    for command in (("unlock", "nobody"), ("disable", "nobody"), ("reset-factor", "nobody")):
        assert "--because" in (await cli("operator", *command)).err, "nothing is done without a why"
        told = await cli("operator", *command, "--because", "asked")
        assert "operator.not_found" in told.err
