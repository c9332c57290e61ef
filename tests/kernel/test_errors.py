"""A refusal carries a stable code, safe facts, and advice in two languages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tongbao.kernel import errors
from tongbao.kernel.errors import Busy, Conflict, Overloaded, Refusal, leaf_refusals
from tongbao.kernel.ids import UnknownId
from tongbao.kernel.pages import CursorInvalid

FACTS = st.dictionaries(
    st.from_regex(r"[a-z_]{1,12}", fullmatch=True).filter(lambda name: name != "param"),
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20)),
    max_size=4,
)


@given(FACTS)
def test_a_refusal_shows_its_code_and_its_facts(facts: dict[str, errors.Fact]) -> None:
    refusal = UnknownId(param="id", **facts)

    assert refusal.facts == facts
    assert refusal.param == "id"
    assert str(refusal).startswith("id.unknown(")
    assert all(f"{name}={value}" in str(refusal) for name, value in facts.items())


def test_a_refusal_can_be_raised_as_a_class() -> None:
    with pytest.raises(Refusal) as caught:
        raise CursorInvalid

    assert caught.value.facts == {}
    assert caught.value.param is None


def test_leaves_are_the_classes_that_state_a_code() -> None:
    leaves = leaf_refusals()

    assert UnknownId in leaves
    assert not {Refusal, Conflict, Busy} & set(leaves)


def test_every_kind_stands_directly_below_refusal() -> None:
    """The edge maps kinds to statuses; a kind below another would have two."""
    kinds = [
        thing
        for thing in vars(errors).values()
        if isinstance(thing, type) and issubclass(thing, Refusal) and thing is not Refusal
    ]

    kinds.remove(Overloaded)  # a Busy with a status of its own: fewer at once would be served
    assert len(kinds) == 8
    assert all(kind.__bases__ == (Refusal,) for kind in kinds)


def test_busy_says_when_to_come_back() -> None:
    assert Busy.retry_after_s >= 1
