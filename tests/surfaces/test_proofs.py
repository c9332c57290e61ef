"""Receipts by API, SDK and command line, checked by the program anybody may fetch."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.stage import Stage
from tests.surfaces.commands import Cli
from tests.surfaces.everything import pay_by_wallet
from tongbao.infra.db import Db
from tongbao.kernel.ids import parse
from tongbao.ledger.proofs.checkpoints import prove_now, seed
from tongbao.ledger.proofs.model import Proofs
from tongbao_sdk import Refused


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_KEK_FILE": str(tmp_path / "kek"),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
    }


def judged(folder: Path, program: str, proof: str, *keys: str) -> tuple[int, str]:
    """Let the printed program judge a proof, in a Python that knows nothing of us."""
    file, script = folder / "proof.json", folder / "verify_receipt.py"
    file.write_text(proof, encoding="utf-8")
    script.write_text(program, encoding="utf-8")
    command = [sys.executable, "-I", "-S", str(script), str(file), *keys]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


async def paid(stage: Stage) -> Any:
    wallet = await stage.call(stage.client.wallets.open, holder_name="张三")
    await stage.call(stage.client.wallets.top_up, wallet["id"], amount=10_000)
    return await pay_by_wallet(stage, stage.client, wallet["id"])


async def test_a_merchant_gets_a_receipt_once_the_worker_has_signed(
    stage: Stage, tmp_path: Path
) -> None:
    payment = await paid(stage)
    with pytest.raises(Refused) as early:
        await stage.call(stage.client.payments.receipt, payment["id"])
    assert early.value.code == "ledger.receipt_not_ready"

    async with stage.db.begin("tests") as tx:
        await seed(tx)
    await stage.idle()
    receipt = await stage.call(stage.client.payments.receipt, payment["id"])

    async with httpx.AsyncClient() as anybody:
        keys = (await anybody.get(f"{stage.url}/ledger/keys")).json()
        program = (await anybody.get(f"{stage.url}/ledger/verifier")).text
    lines = [key["key"] for key in keys]
    code, said = judged(tmp_path, program, json.dumps(receipt), *lines)
    assert code == 0, said
    assert payment["id"].removeprefix("pay_") in said
    assert "credit merchant_payable of" in said
    # The customer's wallet and the platform's income stay their own business.
    gross, fee = receipt["transfers"]
    assert gross["debit"].keys() == fee["credit"].keys() == {"sealed"}
    assert {key["algorithm"] for key in keys} >= {"ed25519"}


async def test_an_unpaid_payment_and_a_stranger_get_none(stage: Stage) -> None:
    waiting = await stage.show_qr("wechat_pay")
    other = stage.client_of(await stage.open_shop())

    with pytest.raises(Refused) as unpaid:
        await stage.call(stage.client.payments.receipt, waiting["id"])
    with pytest.raises(Refused) as stranger:
        await stage.call(other.payments.receipt, waiting["id"])

    assert unpaid.value.code == "ledger.nothing_posted"
    assert stranger.value.code == "payment.not_found"


@pytest.mark.parametrize("path", ["/ledger/keys", "/ledger/verifier"])
async def test_what_is_published_is_read_and_not_written(stage: Stage, path: str) -> None:
    async with httpx.AsyncClient(base_url=stage.url) as anybody:
        assert (await anybody.get(path)).status_code == 200
        assert (await anybody.post(path)).status_code == 405
        assert (await anybody.get(f"{path}/else")).status_code == 404


async def test_the_operator_proves_by_command(
    stage: Stage, cli: Cli, db: Db, tmp_path: Path
) -> None:
    payment = await paid(stage)
    proofs = Proofs(db, stage.platform.keyring)
    await prove_now(proofs)
    await paid(stage)
    stage.db.clock.offset += timedelta(days=1)

    made = await cli("--json", "ledger", "checkpoint", "--now")
    listed = await cli("--json", "ledger", "checkpoint", "--book", "2")
    nightly = await cli("--json", "ledger", "checkpoint", "--book", "2", "--nightly")
    note = await cli("ledger", "checkpoint", "--book", "2", "--note", "1")
    audited = await cli("--json", "ledger", "checkpoint", "--audit")
    keys = (await cli("--json", "ledger", "keys")).json
    rotated = (await cli("--json", "ledger", "keys", "--rotate", "ed25519")).json
    program = (await cli("ledger", "prove", "--verifier")).out
    receipt = await cli("ledger", "prove", payment["id"])
    by_uuid = await cli("ledger", "prove", str(parse("pay", payment["id"])))
    growth = await cli("ledger", "prove", "--book", "2", "--consistency", "1", "2")

    assert [each["book"] for each in made.json] == [2]
    assert [each["checkpoint"] for each in listed.json] == [2, 1]
    assert nightly.json == []
    assert "/book/2\n" in note.out
    assert {each["book"] for each in audited.json} >= {2}
    assert len(rotated) == len(keys) + 1
    assert receipt.out == by_uuid.out
    lines = [key["key"] for key in keys]
    assert judged(tmp_path, program, receipt.out, *lines)[0] == 0
    code, said = judged(tmp_path, program, growth.out, *lines)
    assert (code, "are unchanged" in said) == (0, True)
    tampered = receipt.out.replace('"amount":', '"amount":1')
    assert judged(tmp_path, program, tampered, *lines)[0] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("prove",), "name one thing"),
        (("prove", "pay_1", "--verifier"), "name one thing"),
        (("prove", "pay_1"), "id.unknown"),
        (("prove", "1-2"), "id.unknown"),
        (("prove", "00000000-0000-0000-0000-000000000001"), "ledger.nothing_posted"),
        (("prove", "--consistency", "1", "2"), "ledger.checkpoint_missing"),
        (("checkpoint", "--note", "7"), "ledger.checkpoint_missing"),
        (("checkpoint", "--day", "2026-01-01"), "ledger.day_root_missing"),
        (("keys", "--rotate", "blind"), "Invalid value"),
    ],
)
async def test_what_cannot_be_proved_says_why(cli: Cli, words: tuple[str, ...], said: str) -> None:
    done = await cli("ledger", *words)

    assert done.code != 0
    assert said in done.err


async def test_a_breach_is_told_on_the_command_line(stage: Stage, cli: Cli, db: Db) -> None:
    await paid(stage)
    await cli("ledger", "checkpoint", "--now")
    await db.pool.execute("grant update on ledger_transfer to current_user")
    await db.execute("update ledger_transfer set amount = amount + 1 where seq = 1", ())

    done = await cli("ledger", "checkpoint", "--audit")

    assert done.code == 1
    assert "book 2 was stopped: proofs:" in done.err
