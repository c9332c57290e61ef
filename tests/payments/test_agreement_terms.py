"""What of an agreement's limits a channel hears that shows them to the customer."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.payments.agreements.model import NewAgreement, Period
from tongbao.rails.channels.capabilities.agreements import AgreementTerms

LATE = datetime(2030, 1, 31, 17, tzinfo=UTC)  # one in the morning of the next day, in China


@pytest.mark.parametrize(
    ("limits", "terms"),
    [
        ({}, AgreementTerms(date(2030, 2, 1))),
        (
            {"limit_each": 300, "period": Period.WEEK, "limit_per_period": 900},
            AgreementTerms(date(2030, 2, 1), "week", Money(300, "CNY"), Money(900, "CNY")),
        ),
        (
            {"limit_total": 3600, "payments_max": 12},
            AgreementTerms(date(2030, 2, 1), limit_total=Money(3600, "CNY"), payments_max=12),
        ),
    ],
)
def test_a_channel_hears_an_agreements_limits(
    limits: dict[str, Any], terms: AgreementTerms
) -> None:
    asked = {"limit_each": None, "period": None, "limit_per_period": None, **limits}
    new = NewAgreement(
        merchant_id=uuid4(),
        mode=Mode.SANDBOX,
        book=1,
        merchant_agreement_no="M-1",
        channel="alipay",
        account_id=uuid4(),
        plan="CYCLE_PAY_AUTH_P",
        display_name="membership",
        payer_id=None,
        return_url=None,
        currency="CNY",
        expires_in=timedelta(hours=1),
        **asked,
    )
    assert new.row(uuid4(), LATE).order.terms == terms
