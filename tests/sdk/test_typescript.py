"""The SDK for TypeScript, by Node.js: its types are the routes', its calls happen once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.flaky import KEY_ID, SECRET, FlakyPlatform
from tests.stage import Stage, new_number
from tests.surfaces.receiver import receiving
from tongbao.kernel.clock import real_now
from tools import typescript

SDK = Path(__file__).parents[2] / "sdk" / "typescript"
DRIVE = Path(__file__).parent / "typescript" / "drive.mjs"
ORDER = {"merchant_order_no": "A-1", "amount": 1999, "currency": "CNY", "subject": "茶"}


def drive(act: str, **given: Any) -> Any:
    """Have the driver do something with the SDK and return what it saw."""
    node = shutil.which("node")
    if node is None:
        if "node" in os.environ.get("TONGBAO_REQUIRE", "").split(","):
            pytest.fail("node is not installed")
        pytest.skip("node is not installed")
    run = subprocess.run(
        [node, DRIVE],
        input=json.dumps({"act": act, "sdk": (SDK / "index.js").as_uri(), **given}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_the_types_are_what_the_routes_say() -> None:
    for name, text in typescript.files(typescript.document()).items():
        assert (SDK / name).read_text("utf-8") == text, "run `make docs`"


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({"$ref": "#/components/schemas/Page[View]"}, "Page_View"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string | null"),
        ({"enum": ["a", "通"]}, '"a" | "通"'),
        ({"type": "array", "items": {"type": "integer"}}, "Array<number>"),
        (
            {"type": "object", "properties": {"a-b": {"type": "string"}, "c": {}}},
            '{ "a-b"?: string; c?: unknown }',
        ),
        (
            {"type": "object", "additionalProperties": {"type": "boolean"}},
            "Record<string, boolean>",
        ),
    ],
)
def test_a_schema_becomes_a_type(schema: dict[str, Any], wanted: str) -> None:
    assert typescript.type_of(schema) == wanted


async def test_it_collects_gives_back_and_lists(stage: Stage) -> None:
    code = await stage.code("wechat_pay")

    seen = await asyncio.to_thread(
        drive,
        "trade",
        url=stage.url,
        keyId=stage.shop.key_id,
        secret=stage.shop.secret.reveal(),
        orderNo=new_number(),
        code=code,
    )

    assert seen.pop("requestId").startswith("req_")
    assert seen == {
        "status": "succeeded",
        "isSame": True,
        "keys": 1,
        "refundOf": True,
        "found": [True],
        "isListed": True,
        "refusal": "money.amount_out_of_range",
        "badId": "TypeError",
    }


async def test_it_verifies_a_webhook_by_either_key(stage: Stage) -> None:
    async with receiving() as receiver:
        endpoint = await stage.call(stage.client.webhook_endpoints.create, receiver.url)
        await stage.call(stage.client.webhook_endpoints.test, endpoint["id"])
        await stage.idle()
        heard = receiver.received[0]
    given = {
        "headers": heard.headers,
        "body": b64encode(heard.body).decode(),
        "now": real_now().timestamp(),
        "publicKeys": [],
        "secrets": [],
        "url": stage.url,
        "keyId": "",
        "secret": "",
    }
    for keys in (
        {"publicKeys": endpoint["public_keys"]},
        {"secrets": [endpoint["secret"]]},
    ):
        seen = await asyncio.to_thread(drive, "webhook", **{**given, **keys})

        assert seen["event"]["type"] == "webhook.test"
        assert seen["refused"] == [True, True, True]


def test_the_key_stays_and_the_signature_is_new_on_every_try(flaky: FlakyPlatform) -> None:
    flaky.script = ["drop", 503, (429, {"code": "x"}, {"retry-after": "3"})]

    seen = drive("call", url=flaky.url, keyId=KEY_ID, secret=SECRET, body=ORDER)

    assert seen["reply"] == {"id": "pay_1"}
    assert len(flaky.made) == 1
    assert len({asked.key for asked in flaky.asked}) == 1
    assert len({asked.signed["nonce"] for asked in flaky.asked}) == 4
    assert all(asked.is_signed_well for asked in flaky.asked)
    assert seen["pauses"][0] < seen["pauses"][2] == 3000


@pytest.mark.parametrize(
    ("script", "failure", "code"),
    [
        ([422], "Refused", "scripted.422"),
        ([429, 429, 429, 429], "Refused", "scripted.429"),
        (["drop", "drop", "drop", "drop"], "Unanswered", None),
        (["drop", 401], "Unanswered", None),
        ([200, (200, b"<html>")], None, None),
        ([(200, b"<html>")] * 4, "Unanswered", None),
    ],
)
def test_what_is_not_known_is_not_guessed(
    flaky: FlakyPlatform, script: list[Any], failure: str | None, code: str | None
) -> None:
    flaky.script = script

    seen = drive("call", url=flaky.url, keyId=KEY_ID, secret=SECRET, body=ORDER)

    assert (seen.get("failure"), seen.get("code")) == (failure, code)
    assert (seen.get("key") is not None) == (failure == "Unanswered")
