"""Numbers of China's registers: published examples hold, and no slip of the pen does."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tongbao.kernel.codecs import registry_numbers

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors/registry_numbers/registry_numbers.json").read_text("utf8")
)
TODAY = date(2026, 11, 22)


def holds(kind: str, text: str) -> bool:
    if kind == "resident_id":
        return registry_numbers.is_resident_id(text, today=TODAY)
    return bool(getattr(registry_numbers, f"is_{kind}")(text))


@pytest.mark.parametrize("kind", sorted(VECTORS["numbers"]))
def test_published_numbers_hold(kind: str) -> None:
    assert [text for text in VECTORS["numbers"][kind] if not holds(kind, text)] == []


@pytest.mark.parametrize("kind", sorted(VECTORS["numbers"]))
def test_no_single_sign_can_be_another(kind: str) -> None:
    """Every one of these check characters finds every single wrong sign."""
    signs = "0123456789" if kind in {"bank_number", "card_number"} else "0123456789ABCDEFGHJX"
    for text in VECTORS["numbers"][kind]:
        slips = (
            text[:place] + sign + text[place + 1 :]
            for place in range(len(text))
            for sign in signs
            if sign != text[place]
        )
        assert [slip for slip in slips if holds(kind, slip)] == []


@given(st.text(max_size=24))
def test_any_text_is_answered(text: str) -> None:
    assert not any(holds(kind, text + "é") for kind in VECTORS["numbers"])


def test_nobody_is_born_on_a_day_that_is_none_or_has_not_come() -> None:
    assert not holds("resident_id", "110105194913310023")
    assert not registry_numbers.is_resident_id("11010519491231002X", today=date(1949, 12, 30))
    assert registry_numbers.is_resident_id("11010519491231002X", today=date(1949, 12, 31))
