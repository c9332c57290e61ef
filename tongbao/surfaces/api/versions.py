"""The versions of this API, and how programs written for an older one are served."""

from __future__ import annotations

from typing import Final

from tongbao.infra.web.versions import Change, Fields, Versions

OLDEST: Final = "2026-10-01"


def _payment_before(payment: Fields) -> Fields:
    """A payment said its order number and its way of paying without a room for each."""
    method = payment.pop("method", {})
    payment["order_no"] = payment.pop("merchant_order_no", None)
    return {**payment, "channel": method.get("channel"), "pay_mode": method.get("mode")}


def _request_since(body: Fields) -> Fields:
    """Collect the way of paying into ``method``; what is missing is refused as in today's form."""
    asked = {"channel": "channel", "pay_mode": "mode", "auth_code": "auth_code"}
    method = {now: body.pop(before) for before, now in asked.items() if before in body}
    if "order_no" in body:
        body["merchant_order_no"] = body.pop("order_no")
    return {**body, "method": method} if method else body


API_VERSIONS: Final = Versions(
    OLDEST,
    (
        Change(
            version="2026-11-22",
            what="A payment's way of paying is in `method`, and its `order_no` is called"
            " `merchant_order_no`.",
            objects=frozenset({"payment"}),
            older=_payment_before,
            routes=frozenset({("POST", "/v1/payments")}),
            newer=_request_since,
        ),
    ),
)
"""From before the first release: one older version is kept, so that keeping one is tried daily."""
