"""Write the generated half of the TypeScript SDK from the OpenAPI document: ``make docs``.

`types.d.ts` has a type per schema and, per operation, what it takes and returns. It is made whole,
and a test compares it with the routes.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from tongbao.infra.db import Db
from tongbao.infra.kms.opening import open_keyring
from tongbao.infra.serving.app import App
from tongbao.infra.settings import load_settings
from tongbao.kernel.clock import Clock
from tongbao.wiring import Platform
from tools.house import ROOT

_PERSON: Final = "/v1/me/openapi.json"
FOLDER: Final = ROOT / "sdk" / "typescript"
GENERATED: Final = "// Made by `make docs` from the API's own description; edit that."
_PLAIN: Final = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}
_NAME: Final = re.compile(r"[A-Za-z_$][\w$]*")


def document() -> dict[str, Any]:
    """Return the document of a licensed firm with a test clock, which has every route.

    It is made of the routes alone: no database is asked.
    """
    return dict(_app().document)


def person_document() -> dict[str, Any]:
    """Return the document of people's own phones, as it is served."""
    sent: list[Any] = []

    async def read() -> None:
        scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": _PERSON,
            "raw_path": _PERSON.encode(),
        }
        scope |= {"query_string": b"", "headers": [], "client": None, "scheme": "http"}
        await _app()(scope, nothing, keep)

    async def nothing() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def keep(message: Any) -> None:
        sent.append(message)

    # In a thread of its own: whoever compares the files may have a loop here already.
    with ThreadPoolExecutor(1) as apart:
        apart.submit(asyncio.run, read()).result()
    return dict(json.loads(b"".join(each.get("body", b"") for each in sent)))


def _app() -> App:
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(
            {
                "TONGBAO_DATA_DIR": folder,
                "TONGBAO_KEK_FILE": str(Path(folder) / "kek"),
                "TONGBAO_LICENCE": "bank",
                "TONGBAO_TEST_CLOCK": "true",
            },
            None,
        )
        platform = Platform(settings, Db(None, Clock()), open_keyring(settings))
        return platform.app()


def files(described: Mapping[str, Any]) -> dict[str, str]:
    """Return the generated files by name."""
    return {"types.d.ts": _types(described), "person.d.ts": _types(person_document())}


def main() -> None:
    """Write every file whose text has changed."""
    for name, text in files(document()).items():
        path = FOLDER / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(f"wrote {path.relative_to(ROOT)}")


def _types(described: Mapping[str, Any]) -> str:
    lines = [GENERATED, ""]
    for name, schema in sorted(described["components"]["schemas"].items()):
        if text := schema.get("description"):
            lines.append(f"/** {' '.join(text.split())} */")
        lines += [f"export type {_type_name(name)} = {type_of(schema)};", ""]
    lines.append("/** What each operation, by method and path, takes and returns. */")
    lines.append("export interface Operations {")
    for name, operation in _each(described):
        lines.append(f"  /** {operation['summary']}. */")
        lines.append(f'  "{name}": {{ {_signature(operation)} }};')
    return "\n".join([*lines, "}"]) + "\n"


def _each(described: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path, methods in sorted(described["paths"].items()):
        for method, operation in sorted(methods.items()):
            yield f"{method.upper()} {path}", operation


def _signature(operation: Mapping[str, Any]) -> str:
    parts: dict[str, list[str]] = {"path": [], "query": []}
    for each in operation["parameters"]:
        if "$ref" not in each:
            mark = "" if each["required"] else "?"
            parts[each["in"]].append(f"{each['name']}{mark}: {type_of(each['schema'])}")
    fields = [f"{name}: {{ {'; '.join(taken)} }}" for name, taken in parts.items() if taken]
    if "requestBody" in operation:
        fields.append(f"body: {_content(operation['requestBody'])}")
    done = next(answer for status, answer in operation["responses"].items() if status[0] == "2")
    fields.append(f"reply: {_content(done) if 'content' in done else 'undefined'}")
    return "; ".join(fields)


def _content(described: Mapping[str, Any]) -> str:
    known = described["content"].get("application/json")
    return "Uint8Array" if known is None else type_of(known["schema"])  # a file is its own body


def type_of(schema: Mapping[str, Any]) -> str:
    """Return the TypeScript of a JSON Schema."""
    if "$ref" in schema:
        return _type_name(schema["$ref"].rpartition("/")[2])
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        return " | ".join(json.dumps(each, ensure_ascii=False) for each in values)
    kind = schema.get("type")
    either = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(kind, list):
        either = [{**schema, "type": each} for each in kind]
    if either:
        return " | ".join(dict.fromkeys(type_of(each) for each in either))
    shaped = {"array": _array, "object": _object}.get(str(kind))
    return shaped(schema) if shaped else _PLAIN.get(str(kind), "unknown")


def _array(schema: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"[{', '.join(type_of(each) for each in schema['prefixItems'])}]"
    return f"Array<{type_of(schema['items'])}>" if "items" in schema else "unknown[]"


def _object(schema: Mapping[str, Any]) -> str:
    required = set(schema.get("required", ()))
    fields = [
        f"{name if _NAME.fullmatch(name) else json.dumps(name)}"
        f"{'' if name in required else '?'}: {type_of(inside)}"
        for name, inside in schema.get("properties", {}).items()
    ]
    if fields:
        return f"{{ {'; '.join(fields)} }}"
    more = schema.get("additionalProperties")
    return f"Record<string, {type_of(more) if isinstance(more, Mapping) else 'unknown'}>"


def _type_name(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_")


if __name__ == "__main__":
    main()
