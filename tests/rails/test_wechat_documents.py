"""Every document that others recorded of WeChat Pay is read and written again as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tongbao.rails.channels.wechat_pay.documents import (
    agreements,
    orders,
    splits,
    transfers,
    vehicles,
)
from tongbao.rails.channels.wechat_pay.documents.parts import Document

WECHAT = Path(__file__).parents[1] / "vectors" / "wechat"
RECORDED = Path(__file__).parent / "recorded"

FAMILIES = {
    "agreements": agreements,
    "orders": orders,
    "splits": splits,
    "transfers": transfers,
    "vehicles": vehicles,
}


def named(path: str) -> type[Document]:
    family, _, name = path.partition(".")
    found: type[Document] = getattr(FAMILIES[family], name)
    return found


TABLE = json.loads((RECORDED / "wechat_documents.json").read_text())
"""Which of our Structs reads which sample."""
MODELS = {name: named(path) for name, path in TABLE["models"].items()}
EVENTS = {name: named(path) for name, path in TABLE["events"].items()}


def sample(folder: str, name: str) -> Any:
    return json.loads((WECHAT / folder / f"{name}.json").read_text("utf-8-sig"))


def shown_twice(document: type[Document], text: Any) -> Any:
    """The text after it was read into our Struct and written again."""
    return json.loads(msgspec.json.encode(msgspec.convert(text, document)))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_round_trips(name: str) -> None:
    assert shown_twice(MODELS[name], sample("models", name)) == sample("models", name)


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_round_trips(name: str) -> None:
    assert shown_twice(EVENTS[name], sample("events", name)) == sample("events", name)


@pytest.mark.parametrize(("folder", "known"), [("models", MODELS), ("events", EVENTS)])
def test_every_sample_has_its_struct(folder: str, known: dict[str, type[Document]]) -> None:
    assert {path.stem for path in (WECHAT / folder).glob("*.json")} == set(known)


def test_the_samples_are_all_there() -> None:
    assert (len(MODELS), len(EVENTS)) == (143, 15)


@pytest.mark.parametrize("name", {**MODELS, **EVENTS})
def test_a_field_we_do_not_know_does_not_hinder_reading(name: str) -> None:
    document = {**MODELS, **EVENTS}[name]
    text = sample("models" if name in MODELS else "events", name)
    assert shown_twice(document, {**text, "a_field_of_tomorrow": [{}]}) == text
