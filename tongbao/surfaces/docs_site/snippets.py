"""What to paste: each operation as a signed curl call, as Python and as TypeScript with our SDKs.

The shell and the Python are executed by a test, so they are what works and not what looks right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

SCHEME: Final = "TONGBAO-HMAC-SHA256"

_SDK: Final[Mapping[tuple[str, str], str]] = {
    ("POST", "/v1/payments"): "tongbao.payments.create(**{body})",
    ("GET", "/v1/payments"): "list(tongbao.payments.list(limit=20))",
    ("GET", "/v1/payments/{payment_id}"): "tongbao.payments.get({payment_id})",
    ("POST", "/v1/payments/{payment_id}/close"): "tongbao.payments.close({payment_id})",
    (
        "POST",
        "/v1/payments/{payment_id}/refunds",
    ): "tongbao.payments.refund({payment_id}, **{body})",
    ("GET", "/v1/refunds"): "list(tongbao.refunds.list(limit=20))",
    ("GET", "/v1/refunds/{refund_id}"): "tongbao.refunds.get({refund_id})",
    ("GET", "/v1/events"): "list(tongbao.events.list(limit=20))",
    ("GET", "/v1/events/{event_id}"): "tongbao.events.get({event_id})",
    ("GET", "/v1/balance"): "tongbao.balance()",
}


class Call(Struct, frozen=True):
    """One operation, ready to be written down."""

    method: str
    path: str
    idempotent: bool
    body: Any = None
    file: str | None = None  # the type of file that its body is, if it is one

    @property
    def names(self) -> list[str]:
        """The names in its path."""
        return re.findall(r"\{(\w+)\}", self.path)


def curl(call: Call, url: str) -> str:
    """Return a shell script that signs one request and sends it."""
    path = re.sub(r"\{(\w+)\}", lambda found: f"${{{found[1].upper()}}}", call.path)
    body = "" if call.body is None else json.dumps(call.body, ensure_ascii=False)
    quoted = body.replace("'", "'\\''")
    send = [f'curl -sS -X {call.method} "{url}$TARGET"']
    send.append(
        f'  -H "Authorization: {SCHEME} key=$TONGBAO_KEY,timestamp=$AT,nonce=$NONCE,signature=$SIG"'
    )
    if call.body is not None:
        send += ["  -H 'Content-Type: application/json' --data-raw \"$BODY\""]
    if call.idempotent:
        send += ['  -H "Idempotency-Key: $(openssl rand -hex 16)"']
    signed = '"$TARGET" "$AT" "$NONCE" "$HASH"'
    return "\n".join(
        [
            f"BODY='{quoted}'",
            f'TARGET="{path}"',
            "AT=$(date +%s)",
            "NONCE=$(openssl rand -hex 16)",
            "HASH=$(printf %s \"$BODY\" | openssl dgst -sha256 -hex | sed 's/^.* //')",
            f"SIG=$(printf '{call.method}\\n%s\\n%s\\n%s\\n%s\\n' {signed} \\",
            '  | openssl dgst -sha256 -hmac "$TONGBAO_SECRET" -binary | openssl base64 -A)',
            " \\\n".join(send),
        ]
    )


def python(call: Call, url: str) -> str:
    """Return Python that makes the call with the SDK, and prints what comes back."""
    lines = [
        "import os",
        "from tongbao_sdk import Tongbao",
        "",
        "tongbao = Tongbao(",
        f'    "{url}",',
        '    key_id=os.environ["TONGBAO_KEY"],',
        '    secret=os.environ["TONGBAO_SECRET"],',
        ")",
    ]
    asked = {name: f'os.environ["{name.upper()}"]' for name in call.names}
    body = "{}" if call.body is None else _literal(call.body)
    template = _SDK.get((call.method, call.path))
    if template is None:
        path = re.sub(r"\{(\w+)\}", lambda found: f"{{{asked[found[1]]}}}", call.path)
        shown = f"f'{path}'" if call.names else f'"{call.path}"'
        template = _by_transport(call, shown)
    for name, value in asked.items():
        template = template.replace(f"{{{name}}}", value)
    return "\n".join([*lines, f"print({template.replace('{body}', body)})"])


def typescript(call: Call, url: str) -> str:
    """Return a module that makes the call with the SDK for TypeScript, and prints the answer."""
    given = []
    if call.names:
        shown = ", ".join(f'{name}: process.env.{name.upper()} ?? ""' for name in call.names)
        given.append(f"  path: {{ {shown} }},")
    if call.file is not None:
        given.append('  body: readFileSync(process.env.FILE ?? ""),')
        given.append(f'  contentType: "{call.file}",')
    if call.body is not None:
        body = json.dumps(call.body, ensure_ascii=False, indent=2).replace("\n", "\n  ")
        given.append(f"  body: {body},")
    call_text = f'await tongbao.call("{call.method} {call.path}"'
    asked = "\n".join([f"{call_text}, {{", *given, "})"]) if given else f"{call_text})"
    return "\n".join(
        [
            *(['import { readFileSync } from "node:fs";'] if call.file else []),
            'import { Tongbao } from "tongbao-sdk";',
            "",
            f'const tongbao = new Tongbao("{url}", {{',
            '  keyId: process.env.TONGBAO_KEY ?? "",',
            '  secret: process.env.TONGBAO_SECRET ?? "",',
            "});",
            f"console.log({asked});",
        ]
    )


def with_key(name: str, text: str, key_id: str) -> str:
    """Return an example that names a key; its secret stays in the reader's environment."""
    if not key_id:
        return text
    if name == "curl":
        asked = ': "${TONGBAO_SECRET:?the secret of this key}"'
        return f"TONGBAO_KEY='{key_id}'\n{asked}\n{text}"
    named = f'"{key_id}"'
    return text.replace('os.environ["TONGBAO_KEY"]', named).replace(
        'process.env.TONGBAO_KEY ?? ""', named
    )


def _by_transport(call: Call, path: str) -> str:
    """Return the call by the SDK's own transport, where it has no method of its own for it."""
    if call.method == "GET":
        return f"tongbao.transport.get({path})"
    given = "" if call.body is None else ", {body}"
    method = "" if call.method == "POST" else f', method="{call.method}"'
    return f"tongbao.transport.post({path}{given}{method})"


def _literal(body: Any) -> str:
    lines = json.dumps(body, ensure_ascii=False, indent=4).split("\n")
    text = "\n".join(lines)
    return re.sub(r"(?<=: )(true|false|null)\b", lambda word: _WORDS[word[1]], text)


_WORDS: Final = {"true": "True", "false": "False", "null": "None"}
