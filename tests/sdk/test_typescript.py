"""The SDK for TypeScript, by Node.js: its types are the routes', its calls happen once."""

from __future__ import annotations

import asyncio
import json
import shutil
from base64 import b64encode
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.outsiders import heard_from, lacking, node, node_with
from tests.sdk.flaky import KEY_ID, SECRET, FlakyPlatform
from tests.stage import Stage, new_number
from tests.surfaces.receiver import receiving
from tongbao.kernel.clock import real_now
from tongbao.surfaces.docs_site.reference import groups_of
from tongbao_sdk import message_signing
from tools import typescript

ROOT = Path(__file__).parents[2]
SDK = ROOT / "sdk" / "typescript"
DRIVE = Path(__file__).parent / "typescript" / "drive.mjs"
QR = {"channel": "wechat_pay", "mode": "qr"}
ORDER = {"merchant_order_no": "A-1", "amount": 1999, "currency": "CNY", "subject": "茶"}


def drive(act: str, **given: Any) -> Any:
    """Have the driver do something with the SDK and return what it saw."""
    return heard_from([node(), DRIVE], {"act": act, "sdk": (SDK / "index.js").as_uri(), **given})


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


def pem_of(key: Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize("kind", ["ed25519", "ec", "rsa"])
async def test_requests_are_signed_by_a_key_pair_of_ones_own(stage: Stage, kind: str) -> None:
    """The platform, which knows the public half alone, takes them (RFC 9421)."""
    made: Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey
    if kind == "ed25519":
        made = Ed25519PrivateKey.generate()
    elif kind == "ec":
        made = generate_private_key(SECP256R1())
    else:
        made = rsa.generate_private_key(65537, 2048)
    public = made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path = f"/v1/api_keys/{stage.shop.key_id}/roll"
    rolled = await stage.call(stage.client.transport.post, path, {"public_key": public.decode()})
    other = pem_of(Ed25519PrivateKey.generate())
    given = {"url": stage.url, "keyId": rolled["id"], "body": {**ORDER, "amount": 0, "method": QR}}

    ours = await asyncio.to_thread(drive, "call", **given, privateKey=pem_of(made))
    theirs = await asyncio.to_thread(drive, "call", **given, privateKey=other)
    file = await asyncio.to_thread(drive, "upload", **given, privateKey=pem_of(made))

    assert ours["code"] == "money.amount_out_of_range", "it was let in, and looked at"
    assert file["code"] == "application.not_found", "the signed digest is the file's"
    assert theirs["code"] == "auth.signature_invalid"


def test_both_sdks_sign_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Ed25519 signature is the same each time (RFC 8032), so it can be compared."""
    key = pem_of(Ed25519PrivateKey.generate())
    url, body = "https://pay.example/v1/payments?a=%E8%8C%B6", '{"subject":"茶"}'
    headers = {"Idempotency-Key": "once-1", "Accept": "x"}
    at = SimpleNamespace(time=lambda: 1_800_000_000.7)
    monkeypatch.setattr("tongbao_sdk.message_signing.time", at)
    once = SimpleNamespace(token_urlsafe=lambda _size: "nonce-1")
    monkeypatch.setattr("tongbao_sdk.message_signing.secrets", once)

    signer = message_signing.MessageSigner("key_1", key)
    for text in (body, ""):
        ours = signer.headers("POST", url, text.encode(), headers)
        seen = drive(
            "sign",
            keyId="key_1",
            privateKey=key,
            method="POST",
            url=url,
            body=text,
            headers=headers,
            at=1_800_000_000,
            nonce="nonce-1",
            secret="",
        )
        assert seen["headers"] == ours


TSC = ROOT / ".clients" / "typescript" / "node_modules"


async def test_every_example_fits_the_types(stage: Stage, tmp_path: Path) -> None:
    """`tsc --strict --noEmit` over the SDK, over every documented example, and over wrong calls."""
    if shutil.which("node") is None:
        lacking("clients", "node is not installed, which npm's typescript needs")
    node_with(TSC.parent, "typescript")
    examples = [
        next(each.text for each in operation.examples if each.name == "TypeScript")
        for group in groups_of(stage.app.document, stage.url)
        for operation in group.operations
    ]
    for number, text in enumerate(examples):
        (tmp_path / f"example_{number}.ts").write_text(text, "utf-8")
    (tmp_path / "wrong.ts").write_text(WRONG, "utf-8")
    options = {
        "strict": True,
        "noEmit": True,
        "module": "nodenext",
        "target": "es2022",
        "types": ["node"],
        "typeRoots": [str(TSC / "@types")],
        "paths": {"tongbao-sdk": ["./sdk/index.d.ts"]},
    }
    (tmp_path / "sdk").mkdir()
    shutil.copy(SDK / "index.d.ts", tmp_path / "sdk")
    for name, text in typescript.files(stage.app.document).items():
        (tmp_path / "sdk" / name).write_text(text, "utf-8")
    (tmp_path / "package.json").write_text('{"type": "module"}', "utf-8")
    project = {"compilerOptions": options, "include": ["*.ts", "sdk/*.d.ts"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(project), "utf-8")

    compiler = TSC / "typescript" / "bin" / "tsc"
    run = await asyncio.create_subprocess_exec(
        *("node", str(compiler), "-p", str(tmp_path)), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await run.communicate()

    assert len(examples) > 100
    assert not said.decode(), said.decode()


WRONG = """
import { Tongbao } from "tongbao-sdk";
// @ts-expect-error a key has a secret or a key pair
new Tongbao("http://127.0.0.1", { keyId: "k" });
// @ts-expect-error and not both
new Tongbao("http://127.0.0.1", { keyId: "k", secret: "s", privateKey: "p" });
const shop = new Tongbao("http://127.0.0.1", { keyId: "k", privateKey: "p" });
// @ts-expect-error there is no such operation
await shop.call("GET /v1/nothing");
// @ts-expect-error a payment has an amount
await shop.call("POST /v1/payments", { body: { subject: "x" } });
// @ts-expect-error an id is needed
await shop.call("GET /v1/payments/{payment_id}");
const payment = await shop.call("GET /v1/payments/{payment_id}", { path: { payment_id: "p" } });
const amount: number = payment.amount;
// @ts-expect-error an amount is whole minor units
const text: string = payment.amount;
console.log(amount, text);
"""


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
