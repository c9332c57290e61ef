"""A payment whose money was set aside first, as operators see it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.payments.issuer import Issuer
from tests.payments.test_authorisations import capture, set_aside, void
from tests.stage import Stage
from tests.surfaces.visitors import hire, reader


@pytest.fixture
async def issuer(stage: Stage) -> Issuer:
    channels: Any = stage.flow.channels
    channels["wechat_pay"] = issuer = Issuer(stage.db.clock)
    return issuer


async def test_the_timeline_tells_what_became_of_it(stage: Stage, issuer: Issuer) -> None:
    captured, voided, waiting = [await set_aside(stage) for _ in range(3)]
    issuer.faults = {"capture": ["decline"]}
    await capture(stage, captured, 1600)
    await capture(stage, captured, 1500)
    await void(stage, voided)

    async with reader(stage, await hire(stage)) as admin:
        pages = [
            (await admin.get(f"/console/payments/{payment['id']}")).text
            for payment in (captured, voided, waiting)
        ]

    taken, gone, held = pages
    assert "WeChat Pay answered at once that the capture took the money." in taken
    assert "Capture of 16.00 CNY: refused" in taken
    assert "Capture of 15.00 CNY: done" in taken
    assert "Because: the merchant captures" in taken
    assert "payment.captured" in taken
    assert "The merchant let go what was set aside; nothing was collected." in gone
    assert "Void of 19.99 CNY: done" in gone
    assert "WeChat Pay has set the money aside." in held
    for page in pages:
        assert "Set aside" in page
