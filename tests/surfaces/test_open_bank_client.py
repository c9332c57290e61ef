"""A certified OAuth 2 client for Node.js completes the open bank's flow over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.stage import Stage
from tests.surfaces.partnering import ACCOUNTS, BACK, b64
from tests.surfaces.test_open_bank import Bank
from tests.surfaces.test_open_bank import the_bank as _the_bank

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".clients" / "openid_client"
DRIVE = ROOT / "tests" / "clients" / "openid_client" / "drive.mjs"

the_bank = _the_bank


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    required = os.environ.get("TONGBAO_REQUIRE", "").split(",")
    if found is None:
        if "node" in required:
            pytest.fail("node is not installed")
        pytest.skip("node is not installed")
    if not (FOLDER / "node_modules" / "openid-client").exists():
        reason = "npm's openid-client is not installed: run `make clients`"
        if "clients" in required:
            pytest.fail(reason)
        pytest.skip(reason)
    return found


async def test_openid_client_completes_the_flow(
    node: str, the_bank: Bank, shared_stage: Stage
) -> None:
    key = the_bank.partner.key
    private = key.key.private_numbers().private_value.to_bytes(32, "big")
    given = {
        "issuer": shared_stage.url,
        "client_id": the_bank.partner.client_id,
        "jwk": {**key.jwk, "d": b64(private)},
        "kid": "k1",
        "redirect_uri": BACK,
        "details": ACCOUNTS,
    }
    run = await asyncio.create_subprocess_exec(
        *(node, str(DRIVE), str(FOLDER)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert run.stdin is not None
    assert run.stdout is not None
    assert run.stderr is not None
    try:
        run.stdin.write(json.dumps(given).encode() + b"\n")
        line = await asyncio.wait_for(run.stdout.readline(), 60)
        assert line, (await run.stderr.read()).decode()
        url = urlsplit(json.loads(line)["url"])
        query = {name: value for name, [value] in parse_qs(url.query).items()}
        assert set(query) == {"client_id", "request_uri"}
        browser = the_bank.browser()
        told = await browser.consent(query["client_id"], query["request_uri"])
        assert told["iss"] == shared_stage.url
        run.stdin.write(json.dumps({"back": browser.sent_to}).encode() + b"\n")
        line = await asyncio.wait_for(run.stdout.readline(), 60)
        assert line, (await run.stderr.read()).decode()
        heard = json.loads(line)
    finally:
        if run.returncode is None:
            run.kill()
        await run.wait()

    assert heard["token_type"] == "dpop"
    assert [each["id"] for each in heard["accounts"]["items"]] == [the_bank.wallet]
    assert heard["refreshed"] == heard["accounts"]
    assert heard["revoked"] == "invalid_token"
