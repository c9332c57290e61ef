"""The console and the portal under names of their own, which no other page shares."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.infra.signed_client import Reply, call
from tests.stage import Stage, staged
from tongbao.infra.db import Db
from tongbao.infra.settings import SettingInvalid, load_settings
from tongbao.surfaces.page_kit.replies import language_cookie
from tongbao_sandbox.launch import RunningSandbox

CONSOLE, PORTAL = "ops.example", "developers.example:8443"
PUBLIC = (
    "/docs",
    "/v1/payments",
    "/pay/c/unknown",
    "/v1/openapi.json",
    "/oauth/authorize",
    "/nowhere",
)


async def status(stage: Stage, host: str, path: str) -> int:
    reply: Reply = await call(stage.app, "GET", path, {"host": host}, [b""])
    return reply.status


async def test_each_name_has_its_own_pages_and_no_others(
    db: Db, tmp_path: Path, sandbox: RunningSandbox
) -> None:
    named = {"console_url": f"https://{CONSOLE}", "portal_url": f"https://{PORTAL}"}
    async with staged(db, tmp_path, sandbox, sandbox_sign_up=True, **named) as stage:
        public = stage.url.partition("//")[2]
        for host in (CONSOLE, CONSOLE.upper()):
            assert await status(stage, host, "/console/login") == 200
        assert await status(stage, PORTAL, "/portal/login") == 200
        for host in (public, PORTAL, "", "ops.example.evil.example", f"{CONSOLE}:8443"):
            assert await status(stage, host, "/console/login") == 404, host
        for host in (public, CONSOLE, "developers.example"):
            assert await status(stage, host, "/portal/login") == 404, host
        for path in PUBLIC:
            assert await status(stage, CONSOLE, path) == 404, path
            assert await status(stage, PORTAL, path) == 404, path
        assert await status(stage, public, "/docs") == 200
        assert await status(stage, public, "/v1/payments") == 401

        shown = await call(stage.app, "GET", "/console/login", {"host": CONSOLE}, [b""])
        assert "__Host-" in shown.headers["set-cookie"], "its own name is reached over TLS"


async def test_the_language_of_a_reader_is_tied_to_the_host(shared_stage: Stage) -> None:
    kept = language_cookie("en", is_https=True)[1]
    headers = {"cookie": kept.partition(";")[0], "accept-language": "zh"}
    shown = await call(shared_stage.app, "GET", "/console/login", headers, [b""])

    assert kept.startswith("__Host-tongbao_language=en; Path=/; ")
    assert "; Secure" in kept
    assert b'<html lang="en"' in shown.body


async def test_without_names_all_are_at_one(shared_stage: Stage) -> None:
    for host in ("127.0.0.1", "anything.example"):
        assert await status(shared_stage, host, "/console/login") == 200


@pytest.mark.parametrize(
    "wrong", ["ops.example", "https://ops.example/console", "ftp://ops.example"]
)
def test_a_name_is_an_origin(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid):
        load_settings({"TONGBAO_CONSOLE_URL": wrong, "TONGBAO_DATA_DIR": str(tmp_path)})
