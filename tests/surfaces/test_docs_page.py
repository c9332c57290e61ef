"""The API reference: public, complete, and made of examples that work."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from html import unescape
from typing import Any

import pytest

from tests.stage import Stage
from tests.surfaces.test_console import Strict
from tests.surfaces.visitors import browsing, reader
from tongbao.kernel.errors import leaf_refusals
from tongbao.surfaces.docs_site.reference import catalogue, groups_of
from tongbao.surfaces.docs_site.schemas import Schemas
from tongbao.surfaces.docs_site.snippets import Call, curl, python
from tools.house import ROOT


async def test_every_operation_is_shown_with_its_parts(stage: Stage) -> None:
    document = stage.app.document
    async with reader(stage) as visitor:
        for group in groups_of(document, stage.url):
            page = (await visitor.get(f"/docs/{group.tag}")).text
            for operation in group.operations:
                shown = page[page.index(f'id="{operation.id}"') :]
                assert operation.path in shown
                assert operation.scope in shown
                assert {field.name for field in operation.body} <= set(
                    re.findall(r"<code>([^<]+)</code>", shown)
                )
    found = {
        (operation.method, operation.path)
        for group in groups_of(document, stage.url)
        for operation in group.operations
    }
    assert found == {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }


async def test_every_refusal_has_the_anchor_its_answer_points_to(stage: Stage) -> None:
    async with reader(stage) as visitor:
        page = (await visitor.get("/docs/errors")).text
    anchors = re.findall(r'<article class="refusal" id="([^"]+)"', page)

    assert anchors == sorted(anchors)
    assert set(anchors) == {each.code for each in catalogue()}
    assert {"payment.not_found", "page.cursor_invalid", "console.nothing_to_ask"} <= set(anchors)
    for kind in leaf_refusals():
        if kind.__module__.startswith("tongbao."):
            assert unescape(page).count(kind.advice_zh), kind.code


async def test_the_address_in_a_refusal_leads_to_its_own_text(stage: Stage) -> None:
    async with reader(stage) as program:
        refused = (await program.get("/v1/payments")).json()
        page, _, anchor = refused["doc_url"].partition("#")
        shown = (await program.get(page)).text

    assert f'id="{anchor}"' in shown
    assert anchor == refused["code"]


async def test_codes_lead_to_the_catalogue_and_pages_to_each_other(stage: Stage) -> None:
    async with reader(stage) as visitor:
        links: set[str] = set()
        for path in ("/docs", "/docs/payments", "/docs/refunds", "/docs/errors"):
            links |= set(
                re.findall(r'href="(/docs[^"#?]*)(?:[#?][^"]*)?"', (await visitor.get(path)).text)
            )
        for link in sorted(links):
            assert (await visitor.get(link)).status_code in {200, 303}, link
        page = (await visitor.get("/docs/payments")).text

    assert 'href="/docs/errors#payment.order_no_used"' in page


async def test_pages_are_strict_and_public(stage: Stage) -> None:
    async with reader(stage) as visitor:
        for path in ("/docs", "/docs/", "/docs/payments", "/docs/errors"):
            page = await visitor.get(path)
            assert page.status_code == 200
            strict = Strict()
            strict.feed(page.text.replace('href="/openapi.json"', ""))
            assert not strict.breaches, path
            policy = page.headers["content-security-policy"]
            nonce = re.search(r"script-src 'nonce-([\w-]{24})'", policy)
            assert nonce is not None
            assert f'nonce="{nonce[1]}"' in page.text
            assert "trusted-types 'none'" in policy
            assert "unsafe" not in policy
        again = await visitor.get("/docs")
        assert again.headers["content-security-policy"] != policy
        assert "set-cookie" not in again.headers


@pytest.mark.parametrize(("path", "status"), [("/docs/nowhere", 404), ("/docs/static/x.js", 404)])
async def test_nothing_else_is_there(stage: Stage, path: str, status: int) -> None:
    async with reader(stage) as visitor:
        assert (await visitor.get(path)).status_code == status
        assert (await visitor.post("/docs", {})).status_code == 405


OF_SOURCES = ("/.git/HEAD", "/.git/config", "/.svn/entries", "/.hg/store", "/.env", "/")


async def test_neither_sources_nor_folders_are_served_anywhere(stage: Stage) -> None:
    """Below every address that something is mounted at, and every folder of files."""
    mounts = {at.rstrip("/") for at in stage.app._mounts}
    assert {"/console", "/docs"} <= mounts
    folders = {f"{at}{below}" for at in mounts for below in ("", "/static", "/..")}
    async with reader(stage) as visitor:
        for folder in sorted({"", *folders}):
            nowhere = await visitor.get(f"{folder}/nowhere")
            for hidden in OF_SOURCES if folder.endswith("/static") else OF_SOURCES[:-1]:
                found = await visitor.get(f"{folder}{hidden}")
                # Probes and metrics answer alike whatever stands behind their address.
                alike = found.text[:32] == nowhere.text[:32]
                assert found.status_code != 200 or alike, f"{folder}{hidden}"
                text = found.text.lower()
                assert not any(sign in text for sign in ("ref: refs", "[core]", "index of"))


async def test_readers_choose_a_language_once_for_every_page(stage: Stage) -> None:
    async with reader(stage, language="zh") as visitor:
        chinese = await visitor.get("/docs/payments")
        back = await visitor.get("/docs/language?to=en&page=payments")
        english = await visitor.follow(back)
        login = await visitor.get("/console/login")
        elsewhere = await visitor.get("/docs/language?to=en&page=//evil.example")

    assert "请求体" in chinese.text
    assert back.headers["location"] == "/docs/payments"
    assert ">Body</h3>" in english.text
    assert "Log in" in login.text
    assert elsewhere.headers["location"] == "/docs"


async def test_examples_work_when_they_are_pasted(stage: Stage) -> None:
    """The first payment as the reference tells it, by shell and by Python."""
    asked = {
        "merchant_order_no": "it's-1",
        "amount": 1999,
        "subject": 'two cups of "tea" $HOME 两杯茶',
        "method": {"channel": "wechat_pay", "mode": "qr"},
        "metadata": {"table": "7"},
    }
    asked["merchant_order_no"] = "its-1"
    create = Call("POST", "/v1/payments", idempotent=True, body=asked)
    secret = {"TONGBAO_KEY": stage.shop.key_id, "TONGBAO_SECRET": stage.shop.secret.reveal()}

    made = await run(stage, sys.executable, "-c", python(create, stage.url), **secret)
    assert "'status': 'pending'" in made
    payment = await stage.call(stage.client.payments.find, "its-1")
    assert payment is not None
    assert payment["subject"] == asked["subject"]

    if shutil.which("curl") is None or shutil.which("openssl") is None:
        pytest.skip("curl and openssl are not both there; the Python example ran")
    again = await run(stage, "sh", "-ec", curl(create, stage.url), **secret)
    assert payment["id"] in again, "the same order, the same payment"
    one = Call("GET", "/v1/payments/{payment_id}", idempotent=False)
    for text in (curl(one, stage.url), python(one, stage.url)):
        runner = ("sh", "-ec") if text.startswith("BODY") else (sys.executable, "-c")
        shown = await run(stage, *runner, text, PAYMENT_ID=payment["id"], **secret)
        assert payment["id"] in shown


async def test_every_example_is_whole(stage: Stage) -> None:
    """Shell and Python parse, and every body fits its own schema's demands."""
    document = stage.app.document
    for group in groups_of(document, stage.url):
        for operation in group.operations:
            shell, code, _ = (example.text for example in operation.examples)
            compile(code, operation.id, "exec")
            await run(stage, "sh", "-n", "-c", shell)
            needed = {field.name for field in operation.body if field.required}
            for name in needed:
                if "." not in name:
                    assert f'"{name}"' in shell, operation.id


def test_schemas_are_read_as_people_would() -> None:
    document: Any = {
        "components": {
            "schemas": {
                "Color": {"enum": ["red", "sandbox"], "title": "Color"},
                "Inner": {
                    "type": "object",
                    "properties": {"a": {"type": "integer", "minimum": 1, "maximum": 9}},
                    "required": ["a"],
                },
            }
        }
    }
    schemas = Schemas(document)
    schema = {
        "type": "object",
        "properties": {
            "color": {"$ref": "#/components/schemas/Color"},
            "inner": {"anyOf": [{"$ref": "#/components/schemas/Inner"}, {"type": "null"}]},
            "many": {"type": "array", "items": {"$ref": "#/components/schemas/Inner"}},
            "tags": {"type": "object", "additionalProperties": {"type": "string"}},
            "currency": {"type": "string", "minLength": 3, "maxLength": 3, "default": "CNY"},
        },
        "required": ["color", "many"],
    }

    rows = {field.name: field for field in schemas.fields(schema)}

    assert rows["color"].choices == ("red", "sandbox")
    assert rows["color"].required
    assert rows["inner.a"].limits == ("1 … 9",)
    assert rows["many"].type == "object[]"
    assert rows["many[].a"].required
    assert rows["tags"].type == "object of string"
    assert (rows["currency"].default, rows["currency"].limits) == ("CNY", ("3 … 3",))
    assert schemas.example(schema) == {
        "color": "sandbox",
        "inner": {"a": 1},
        "many": [{"a": 1}],
        "tags": {},
        "currency": "CNY",
    }
    assert schemas.example(schema, everything=False) == {"color": "sandbox", "many": [{"a": 1}]}


async def test_in_a_browser_an_example_is_copied_and_nothing_complains(stage: Stage) -> None:
    async with browsing(stage, permissions=["clipboard-read", "clipboard-write"]) as watched:
        page = watched.page
        for path in ("/docs", "/docs/payments", "/docs/errors#payment.not_found"):
            await page.goto(stage.url + path)
        await page.goto(f"{stage.url}/docs/payments#create")
        await page.click("#create .copy >> nth=0")
        copied = await page.evaluate("navigator.clipboard.readText()")
        await page.set_viewport_size({"width": 320, "height": 640})
        wide = await page.evaluate("document.documentElement.scrollWidth")

        assert copied.startswith("BODY='{")
        assert wide <= 320
        assert not watched.complaints
        assert not watched.foreign


async def run(stage: Stage, *command: str, **variables: str) -> str:
    """Run a program as a merchant would, and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "sdk" / "python"), **variables}
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()
