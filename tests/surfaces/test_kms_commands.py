"""Keys at the command line: what there is, and a ceremony by two custodians."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pyotp
import pytest

from tests.surfaces.commands import Cli
from tests.surfaces.visitors import PASSWORD
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Query, Statement
from tongbao.infra.kms.file import FileKms
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.infra.settings import load_settings
from tongbao.parties.identity.model import Role
from tongbao.parties.identity.operators import create_operator
from tongbao.parties.vault import _store as store
from tongbao.wiring import Platform
from tongbao.wiring import open_platform as opened

PAN = "6222021234567890128"


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
    }


async def hire(db: Db, folder: Path, login: str) -> pyotp.TOTP:
    async with db.begin("tests") as tx:
        made = await create_operator(
            tx,
            Keyring.from_file(folder / "kek"),
            login=login,
            name="李娜",
            role=Role.ADMIN,
            password=PASSWORD,
        )
    return pyotp.TOTP(made.totp_secret.reveal())


async def approved(cli: Cli, asked: str, login: str, totp: pyotp.TOTP) -> str:
    """Agree to it, and return the code that was used up by that."""
    shown = (await cli("--json", "approvals", "show", asked)).json
    decide = ("approvals", "approve", asked, "--digest", shown[0]["digest"], "--as", login)
    code = totp.now()
    agreed = await cli("--json", *decide, given=f"{PASSWORD}\n{code}\n")
    assert agreed.code == 0, agreed.err
    return code


async def work_off(environment: dict[str, str]) -> None:
    """Do what is due, as a worker would."""
    async with opened(load_settings(environment)) as platform:
        assert isinstance(platform, Platform)
        await platform.worker.run_until_idle(raise_failures=True)


async def test_a_master_key_is_changed_by_two_custodians_and_all_is_wrapped_anew(
    cli: Cli, db: Db, tmp_path: Path, environment: dict[str, str]
) -> None:
    anne, bert = [await hire(db, tmp_path, login) for login in ("anne", "bert")]
    keyring = Keyring.from_file(tmp_path / "kek")
    keys = SealingKeys(FileKms(keyring, tmp_path / "kek"))
    async with db.begin("shop") as tx:
        kept = await keys.mac_key(tx, "vault.fingerprint")
    [first] = (await cli("--json", "kms", "list")).json
    assert (first["version"], first["there"], first["kept_by"]) == (1, True, "file")

    asked = (await cli("--json", "kms", "rotate", "--because", "two years are over")).json
    used = await approved(cli, asked["approval"], "anne", anne)
    await work_off(environment)
    [open_one] = (await cli("--json", "kms", "ceremonies")).json
    assert open_one["state"] == "open"

    one, other = os.urandom(32).hex(), os.urandom(32).hex()
    enter = ("--json", "kms", "enter", open_one["ceremony"])
    half = await cli(*enter, "--as", "bert", given=f"{PASSWORD}\n{bert.now()}\n{one}\n")
    assert half.code == 0, half.err
    assert one not in half.out + half.err
    whole = await cli(*enter, "--as", "anne", given=f"{PASSWORD}\n{used}\n{other}\n")
    assert (whole.code, "operator.login_refused" in whole.err) == (1, True), "a code counts once"
    carl = await hire(db, tmp_path, "carl")
    whole = await cli(*enter, "--as", "carl", given=f"{PASSWORD}\n{carl.now()}\n{other}\n")
    assert whole.code == 0, whole.err
    [done] = (await cli("--json", "kms", "ceremonies")).json
    assert (done["state"], done["record_holds"]) == ("complete", True)
    assert len((tmp_path / "kek").read_text().split()) == 2

    listed = (await cli("--json", "kms", "sealing-keys")).json
    assert (listed[0]["keys"], listed[0]["to_rewrap"]) == (1, 1)
    again = (await cli("--json", "kms", "rewrap")).json
    assert (again["sealing_keys"], again["left"]) == (1, 0)
    newest, _ = (await cli("--json", "kms", "list")).json
    assert (newest["version"], newest["ceremony"]) == (2, done["ceremony"])
    fresh = SealingKeys(FileKms(Keyring.from_file(tmp_path / "kek"), None))
    async with db.begin("shop") as tx:
        assert await fresh.mac_key(tx, "vault.fingerprint") == kept


async def test_the_inventory_names_every_purpose_and_shows_no_key(
    cli: Cli, db: Db, tmp_path: Path
) -> None:
    await cli("kms", "list")  # which makes the key file
    listed = await cli("--json", "kms", "purposes")
    named = {each["purpose"]: each for each in listed.json}
    assert named["vault.card"]["key"] == "sealing key"
    assert named["channel.secrets"]["bits_min"] == 256
    del db
    [secret] = (tmp_path / "kek").read_text().split()
    assert secret not in listed.out


async def test_card_data_is_found_and_never_shown(cli: Cli, db: Db, tmp_path: Path) -> None:
    clean = await cli("--json", "vault", "scan")
    assert (clean.code, clean.json) == (0, {"found": 0})
    log = tmp_path / "old.log"
    log.write_text(f"he said {PAN}\n")
    found = await cli("--json", "vault", "scan", "--file", str(log))
    assert (found.code, found.json[0]["where"]) == (1, "old.log")
    assert PAN not in found.out + found.err
    del db


async def test_the_role_for_the_vault_gets_what_its_statements_need_and_no_more(
    cli: Cli, db: Db
) -> None:
    granted = (await cli("vault", "grants")).out
    assert "all tables in schema vault" in granted
    for table in ("sealing_key", "audit_entry", "event", "task"):
        assert re.search(rf"\b{table}\b", granted)
        [found] = await db.fetch("select to_regclass($1)::text as name", (table,))
        assert found["name"] == table
    for sql in (each.sql for each in vars(store).values() if isinstance(each, Query | Statement)):
        named = re.findall(r"\b(?:from|into|update|join)\s+([a-z_.]+)", sql)
        assert named, sql
        assert all(name.startswith("vault.") for name in named if name != "set"), sql
        assert "delete" not in re.sub(r"'[a-z]+'", "", sql)
