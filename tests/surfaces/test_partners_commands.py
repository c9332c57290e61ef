"""`tongbao partners` at the command line: proposed, approved by another, listed, suspended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.surfaces.commands import Cli
from tests.surfaces.partnering import BACK, Es256
from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.controls.approvals.model import Approvals, acts_of
from tongbao.controls.approvals.queries import approval_with_id, changes_of
from tongbao.infra.admission.rate_limits import RateLimit
from tongbao.infra.admission.rate_shares import RateLimits
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.web.problem import TooManyRequests
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Mode
from tongbao.parties.partners.message_keys import published_keys
from tongbao.parties.partners.partners import bound_acts


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
    }


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.from_file(tmp_path / "kek")


async def agree(db: Db, approval: str, keyring: Keyring) -> None:
    desk = Approvals(db, acts_of(*bound_acts(db, keyring)))
    asked = await approval_with_id(db, parse("apv", approval))
    assert await changes_of(desk, asked)
    async with db.begin("checker") as tx:
        await approve(tx, desk.acts, asked.id, digest=asked.digest.hex(), may={"merchants_act"})
    await run_apply(desk, ApplyApproval(asked.id), None)
    assert (await approval_with_id(db, asked.id)).state.value == "applied"


async def test_a_partner_is_taken_on_suspended_and_comes_back_by_two(
    cli: Cli, db: Db, tmp_path: Path, keyring: Keyring
) -> None:
    file, broken = tmp_path / "partner.json", tmp_path / "broken.json"
    draft = {"name": "Ledger Lens", "redirect_uris": [BACK], "kinds": ["account_information"]}
    draft |= {"jwks": {"keys": [{**Es256().jwk, "kid": "k1"}]}}
    file.write_text(json.dumps(draft))
    private = {**Es256().jwk, "kid": "k1", "d": "AAAA"}
    broken.write_text(json.dumps({**draft, "jwks": {"keys": [private]}}))
    shown = await cli("partners", "take-on", str(broken), "--because", "a fine firm")
    assert "jose.key_set_unusable" in shown.err

    told = await cli("--json", "partners", "take-on", str(file), "--because", "a fine firm")
    assert (await cli("--json", "partners", "list")).json == []
    await agree(db, told.json["approval"], keyring)
    [row] = (await cli("--json", "partners", "list")).json
    assert (row["name"], row["state"]) == ("Ledger Lens", "active")

    client = row["client_id"]
    rate = ("--units-per-s", "5", "--burst", "9")
    told = await cli("--json", "partners", "rate-limit", client, *rate)
    assert told.json["burst"] == 9
    found = RateLimits(db, RateLimit(1, 1))
    for _ in range(9):
        await found.take_from((parse("ptn", client), Mode.SANDBOX))
    with pytest.raises(TooManyRequests):
        await found.take_from((parse("ptn", client), Mode.SANDBOX))

    told = await cli("--json", "partners", "suspend", client, "--because", "asks too much")
    assert told.json["state"] == "suspended"
    name = {"name_kind": "san_uri", "name": "spiffe://lens/api", "binds_certificate": True}
    proving = {"method": "tls_client_auth", **name}
    del draft["jwks"]
    told_at = {"webhook_url": "http://127.0.0.1:9/hooks"}
    file.write_text(json.dumps({**draft, "proving": proving, **told_at}))
    told = await cli("--json", "partners", "change", client, str(file), "--because", "all is well")
    await agree(db, told.json["approval"], keyring)
    [row] = (await cli("--json", "partners", "list")).json
    assert (row["state"], row["keys"], row["bound_to"]) == ("active", "", "certificate")
    assert row["proves"] == "tls_client_auth spiffe://lens/api"
    assert row["told_at"] == told_at["webhook_url"]
    assert (await cli("--json", "partners", "notices", client, "--again")).json == []
    kids = {(await cli("--json", "partners", "renew-key")).json["kid"] for _ in range(2)}
    assert {each["kid"] for each in await published_keys(db)} == kids
