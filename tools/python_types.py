"""Write the generated half of the Python SDK from the OpenAPI document: ``make docs``.

`replies.py` has a TypedDict for everything that an answer is made of. It is made whole, and a test
compares it with the routes; what calls them stays written by hand.
"""

from __future__ import annotations

import json
import keyword
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tools.house import ROOT

PATH: Final = ROOT / "sdk" / "python" / "tongbao_sdk" / "replies.py"
APART: Final = frozenset({"Problem"})
"""What no method returns: it is raised, as `Refused`."""
_HEAD: Final = '''# Made by `make docs` from the API's own description; edit that.
"""Everything that answers are made of, as TypedDicts: plain dicts with checked keys.

Amounts are whole minor units (1999 is 19.99 yuan), moments are RFC 3339 texts. Fields are only ever
added, so a program reads what it knows and ignores the rest.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict
'''
_NAMES: Final[Mapping[str, str]] = {
    "AttemptView": "DeliveryAttempt",
    "CardView": "VaultCard",
    "ClockView": "ClockReading",
    "ConsentView": "CombiningConsent",
    "ControlsView": "TokenControls",
    "DeliveryView": "WebhookDelivery",
    "FileView": "EvidenceFile",
    "ImageContentView": "ComplaintImageContent",
    "ImageView": "ComplaintImage",
    "LimitsView": "TerminalLimits",
    "LineView": "OrderLine",
    "MessageView": "ComplaintMessage",
    "MethodView": "MethodUsed",
    "ParametersView": "TerminalParameters",
    "PayoutReceipt": "PayoutReceiptFacts",
    "PinCodeView": "StaffPinCode",
    "Promotion": "PricePromotion",
    "RedirectionView": "RefundRedirection",
    "ReplayView": "RequestReplay",
    "ReplyView": "ComplaintReply",
    "RequestView": "LoggedRequest",
    "Step": "PriceStep",
    "TableView": "DiningTable",
    "TerminalView": "TerminalDetails",
    "TermsView": "MerchantTerms",
    "TokenView": "CardToken",
    "TransferItemView": "Transfer",
    "UnsplitView": "UnsplitMoney",
    "UseKeyView": "CardTokenKey",
    "WalletBalanceView": "UserBalance",
}
"""What merchants' programs call it, where that is not the API's name without ``View``."""
_PLAIN: Final = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "None",
}
_WIDTH: Final = 96

Schemas = Mapping[str, Mapping[str, Any]]


def main(described: Mapping[str, Any]) -> None:
    """Write the file if its text has changed."""
    text = replies(described)
    if not PATH.exists() or PATH.read_text("utf-8") != text:
        PATH.write_text(text, "utf-8")
        print(f"wrote {PATH.relative_to(ROOT)}")


def replies(described: Mapping[str, Any]) -> str:
    """Return the text of the generated module, formatted as the rest of the SDK is."""
    schemas = described["components"]["schemas"]
    shown = {name for name in shown_in_replies(described) if "properties" in schemas[name]}
    named = {name_of(name): name for name in shown - APART if not name.startswith("Page")}
    parts = [_HEAD, *(_class(name, named[name], schemas) for name in sorted(named))]
    ruff = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(PATH), "-"]
    text = "\n".join(parts)
    made = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    return made.stdout


def name_of(schema: str) -> str:
    """Return what the SDK calls a named schema."""
    return _NAMES.get(schema, schema.removesuffix("View"))


def shown_in_replies(described: Mapping[str, Any]) -> set[str]:
    """Return every named schema that a reply is made of."""
    waiting = [
        str(operation["responses"])
        for path in described["paths"].values()
        for operation in path.values()
    ]
    seen: set[str] = set()
    while waiting:
        found = set(re.findall(r"#/components/schemas/([\w.]+)", waiting.pop())) - seen
        seen |= found
        waiting += [str(described["components"]["schemas"][name]) for name in found]
    return seen


def type_of(schema: Mapping[str, Any], schemas: Schemas) -> str:
    """Return the annotation of a JSON Schema."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        inner = schemas[name]
        return name_of(name) if "properties" in inner else type_of(inner, schemas)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        return f"Literal[{', '.join(json.dumps(each, ensure_ascii=False) for each in values)}]"
    kind = schema.get("type")
    either = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(kind, list):
        either = [{**schema, "type": each} for each in kind]
    if either:
        return " | ".join(dict.fromkeys(type_of(each, schemas) for each in either))
    if kind == "array":
        return f"list[{type_of(schema.get('items') or {}, schemas)}]"
    if kind == "object":
        return f"dict[str, {type_of(schema.get('additionalProperties') or {}, schemas)}]"
    return _PLAIN.get(str(kind), "Any")


def _class(name: str, schema_name: str, schemas: Schemas) -> str:
    schema = schemas[schema_name]
    said = " ".join(schema.get("description", "").split()) or f"What the API calls {schema_name}."
    return "\n".join(
        [f"\nclass {name}(TypedDict):", *_docstring(said), "", *_fields(schema, schemas)]
    )


def _docstring(said: str) -> Iterator[str]:
    first, dot, more = said.partition(". ")
    lines = textwrap.wrap(first + dot.strip(), _WIDTH - 8)
    if len(lines) == 1 and not more:
        yield f'    """{lines[0]}"""'
        return
    yield f'    """{lines[0]}'
    yield from (f"    {each}" for each in lines[1:])
    if more:
        yield ""
        yield from (f"    {each}" for each in textwrap.wrap(more, _WIDTH - 4))
    yield '    """'


def _fields(schema: Mapping[str, Any], schemas: Schemas) -> Iterator[str]:
    required = set(schema.get("required", ()))
    for name, inside in schema["properties"].items():
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"{name} can be no field of a class")
        kind = type_of(inside, schemas)
        yield f"    {name}: {kind if name in required else f'NotRequired[{kind}]'}"
