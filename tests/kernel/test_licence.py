"""What kind of firm runs this deployment decides whether money may be kept here."""

from __future__ import annotations

import pytest

from tongbao.kernel.licence import Licence, Mode


@pytest.mark.parametrize("licence", Licence)
def test_only_an_aggregator_may_not_hold_funds(licence: Licence) -> None:
    assert licence.may_hold_funds is (licence is not Licence.AGGREGATOR)


def test_the_words_that_are_stored_never_change() -> None:
    """They are in the database, in settings and in the API."""
    assert [*Licence] == ["aggregator", "payment_institution", "bank"]
    assert [*Mode] == ["live", "sandbox"]
