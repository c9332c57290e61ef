"""Texts: one TOML file per language with the same keys; a test compares them.

A key is the path of its tables: ``state.pending``. Names in braces are filled in.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tongbao.surfaces.page_kit.requests import LANGUAGES


class Texts:
    """Everything a set of pages says in one language."""

    def __init__(self, language: str, texts: Mapping[str, str]) -> None:
        self.language = language
        self.by_key = texts

    def __call__(self, key: str, **facts: object) -> str:
        """Return a text with its names filled in; a missing key is a bug."""
        text = self.by_key[key]
        return text.format(**facts) if facts else text

    def named(self, group: str, name: object) -> str:
        """Return the text for one of an open set of names, or the name itself."""
        plain = str(name)
        key = re.sub(r"[ ./]", "_", plain.strip().lower())
        return self.by_key.get(f"{group}.{key}", plain)


def load_texts(folder: Path) -> Mapping[str, Texts]:
    """Return the texts of a folder's TOML files by language."""
    return {
        language: Texts(
            language,
            dict(_flat(tomllib.loads((folder / f"{language}.toml").read_text("utf-8")))),
        )
        for language in LANGUAGES
    }


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
