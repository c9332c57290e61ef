"""What is in the house: every module imported, and what it declares, found by looking.

The reference pages and the architecture tests both ask here, so a new refusal, event, task, metric,
route or SQL statement is seen without being registered anywhere.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.kernel.errors import Refusal, leaf_refusals

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("tongbao", "tongbao_sandbox")


class Found(Struct, frozen=True):
    """An object and where it was declared, as ``package.module.NAME``."""

    where: str
    thing: Any


def source_files(*packages: str) -> list[Path]:
    """Return every Python file of the packages, in order."""
    return sorted(
        path
        for package in packages or PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "__pycache__" not in path.parts
    )


def module_name(path: Path) -> str:
    """Return the dotted name of a source file; a package's is that of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_wired() -> bool:
    """Whether the front door stands; before that, some rooms wait for a user."""
    return (ROOT / "tongbao" / "__main__.py").exists()


@functools.cache
def imports() -> tuple[tuple[str, ModuleType | Exception], ...]:
    """Import every module of the platform, except entry points; a failure is a value here.

    One test reports failures, so that a module which does not load breaks one test and not all.
    """
    names = [module_name(path) for path in source_files("tongbao")]
    return tuple((name, _imported(name)) for name in names if not name.endswith("__main__"))


def modules() -> list[ModuleType]:
    """Return every module of the platform that can be imported."""
    return [module for _, module in imports() if isinstance(module, ModuleType)]


def instances_of(kind: Any) -> list[Found]:
    """Return every object of a kind that is a module's global, once, where it is declared."""
    found: dict[int, Found] = {}
    for module in modules():
        for name, thing in vars(module).items():
            if isinstance(thing, kind) and not name.startswith("__"):
                found.setdefault(id(thing), Found(f"{module.__name__}.{name}", thing))
    return sorted(found.values(), key=lambda each: each.where)


def statements() -> list[Found]:
    """Return every SQL statement of the platform."""
    return [*instances_of(Query), *instances_of(Statement)]


def refusals() -> list[type[Refusal]]:
    """Return every refusal the platform can answer with, by code."""
    modules()
    ours = [leaf for leaf in leaf_refusals() if leaf.__module__.startswith("tongbao.")]
    return sorted(ours, key=lambda leaf: leaf.code)


def events() -> list[type[Struct]]:
    """Return every event the platform publishes, by its public tag."""
    return _tagged("tongbao.infra.outbox", "Event")


def tasks() -> list[type[Struct]]:
    """Return every task a worker can be given, by its stable tag."""
    return _tagged("tongbao.infra.tasks", "Task")


def tag_of(kind: type[Struct]) -> str:
    """Return the public name of an event or a task."""
    return str(kind.__struct_config__.tag)


def one_line(documented: object) -> str:
    """Return the first paragraph of a docstring as one line."""
    text = inspect.getdoc(documented) or ""
    return " ".join(text.partition("\n\n")[0].split())


def rest_of_text(documented: object) -> str:
    """Return what follows the first paragraph of a docstring, as one line, without ``Raises:``."""
    text = (inspect.getdoc(documented) or "").partition("\n\n")[2]
    return " ".join(text.partition("Raises:")[0].split())


def _imported(name: str) -> ModuleType | Exception:
    try:
        return importlib.import_module(name)
    except Exception as failure:  # noqa: BLE001 - reported by the test that asks for it
        return failure


def _tagged(module: str, base: str) -> list[type[Struct]]:
    modules()
    try:
        root: type[Struct] = getattr(importlib.import_module(module), base)
    except (ModuleNotFoundError, AttributeError):
        return []  # that room is not built yet
    tagged = [kind for kind in _descendants(root) if kind.__struct_config__.tag is not None]
    ours = [kind for kind in tagged if kind.__module__.startswith("tongbao.")]
    return sorted(ours, key=tag_of)


def _descendants(root: type[Struct]) -> Iterator[type[Struct]]:
    for child in root.__subclasses__():
        yield child
        yield from _descendants(child)
