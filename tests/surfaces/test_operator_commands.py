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
    weak = await cli("operator", "set-password", "--login", "li.na", "--password", "my console key")
    before = (await list_operators(db))[0]
    await cli("operator", "set-password", "--login", "li.na", "--password", PASSWORD + "!")
    reset = (await cli("--json", "operator", "reset-factor", "li.na")).json
    await cli("operator", "disable", "li.na")
    [shown] = (await cli("--json", "operator", "list")).json
    await cli("operator", "disable", "li.na", "--undo")
    await cli("operator", "unlock", "li.na")
    [after] = await list_operators(db)

    assert made["totp_uri"] != reset["totp_uri"]
    assert weak.code == 1
    assert before.password_hash != after.password_hash
    assert (shown["role"], shown["state"], after.state) == ("finance", "disabled", "active")
    done = [each.action for each in await audit.entries_of_subject(db, after.actor)]
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
        assert "operator.not_found" in (await cli("operator", *command)).err
