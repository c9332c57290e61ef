"""What channels can do, somebody asks of them: no method of a channel is there for its tests."""

from __future__ import annotations

import ast
from pathlib import Path

from tongbao.rails.channels.contract.callbacks import CallbackKind

PACKAGE = Path(__file__).parents[2] / "tongbao"
CHANNELS = PACKAGE / "rails" / "channels"


def public_methods(path: Path) -> dict[str, str]:
    """The public methods of a module's public classes, each with its class."""
    return {
        method.name: kind.name
        for kind in ast.parse(path.read_text()).body
        if isinstance(kind, ast.ClassDef) and not kind.name.startswith("_")
        for method in kind.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
        and not method.name.startswith("_")
    }


def attributes_used(paths: list[Path]) -> set[str]:
    """Every name that some code reads off something."""
    return {
        node.attr
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }


def test_every_method_of_a_channel_has_a_caller() -> None:
    outside = [each for each in PACKAGE.rglob("*.py") if CHANNELS not in each.parents]
    used = attributes_used(outside)
    contracts = [
        *sorted(CHANNELS.glob("contract/*.py")),
        *sorted(CHANNELS.glob("capabilities/*.py")),
    ]
    clients = sorted(CHANNELS.glob("*/client.py"))
    assert len(clients) >= 6
    assert len(contracts) >= 14

    unused = [
        f"{path.parent.name}.{kind}.{name}"
        for path in (*contracts, *clients)
        for name, kind in public_methods(path).items()
        if name not in used
    ]

    assert unused == []


def test_every_kind_of_a_channels_notice_is_taken_by_somebody() -> None:
    """A kind that nobody takes is kept, which is for products we do not have."""
    duties = (PACKAGE / "duties.py").read_text()

    untaken = {kind for kind in CallbackKind if f"CallbackKind.{kind.name}: " not in duties}

    assert untaken == {CallbackKind.OTHER}
