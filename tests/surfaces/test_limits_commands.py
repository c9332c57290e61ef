"""`tongbao limits`: the limits of the law at the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.surfaces.commands import Cli
from tongbao.controls.approvals.queries import approval_with_id
from tongbao.infra.db import Db
from tongbao.kernel.ids import parse


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
    }


async def test_the_commands_list_and_propose(cli: Cli, db: Db) -> None:
    said = ("--kind", "bank_account_3", "--meter", "balance", "--period", "moment")
    why = ("--from", "2099-01-01", "--instrument", "a rule", "--reason", "it has changed")
    made = (await cli("--json", "limits", "set", *said, *why, "--most", "5000.00")).json
    listed = (await cli("--json", "limits", "list")).json

    found = await approval_with_id(db, parse("apv", made["approval"]))
    assert '"most":500000' in found.terms
    assert any(each["meter"] == "out_all" and each["most"] == 100_000 for each in listed)
