"""`tongbao people`: texts, anchors and rules at the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.infra.test_certificates import Authority
from tests.surfaces.commands import Cli
from tongbao.infra.db import Db
from tongbao.parties.people.consents import texts_in_force

TEXTS = '[zh]\ntitle = "用户协议"\nbody = "……"\n[en]\ntitle = "Terms"\nbody = "…"\n'


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
    }


async def test_texts_anchors_and_rules(cli: Cli, db: Db, tmp_path: Path) -> None:
    root = Authority()
    files = {name: tmp_path / name for name in ("terms.toml", "half.toml", "ca.der", "crl.der")}
    files["terms.toml"].write_text(TEXTS)
    files["half.toml"].write_text('[zh]\ntitle = "x"\nbody = "x"\n')
    files["ca.der"].write_bytes(root.der)
    files["crl.der"].write_bytes(root.crl())
    publish = ("--json", "people", "publish-text", "terms")

    versions = [
        (await cli(*publish, str(files["terms.toml"]), "--required")).json["version"]
        for _ in range(2)
    ]
    half = await cli(*publish, str(files["half.toml"]))
    added = (await cli("--json", "people", "add-anchor", "CA", str(files["ca.der"]))).json["anchor"]
    wrong = await cli("people", "renew-crl", added, str(files["ca.der"]))
    renewed = await cli("--json", "people", "renew-crl", added, str(files["crl.der"]))
    listed = (await cli("--json", "people", "anchors")).json
    rules = (await cli("--json", "people", "rules")).json
    await cli("people", "end-anchor", added)

    assert versions == [1, 2]
    assert half.code == 1
    assert wrong.code == 1
    [text] = await texts_in_force(db, "en")
    assert (text.kind, text.version, text.title, text.is_required) == ("terms", 2, "Terms", True)
    assert renewed.json["good_until"] == listed[0]["crl_until"]
    assert {each["kind"] for each in rules} == {"transfer", "payment", "security", "personal"}
    assert all(each["instrument"] for each in rules)
    assert (await cli("--json", "people", "anchors")).json == []
