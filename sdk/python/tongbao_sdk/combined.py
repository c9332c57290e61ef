"""Combined payments: a customer pays several orders, also of several merchants, in one go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NotRequired, TypedDict, Unpack, cast

from tongbao_sdk.models import Method
from tongbao_sdk.replies import (
    CombinedPayment,
    CombiningConsent,
)
from tongbao_sdk.transport import Once, Transport, path_of

CombinedStatus = Literal["created", "pending", "succeeded", "closed", "mixed"]


class PartOrder(TypedDict):
    """One order to be paid with others; ``merchant_id`` where it is another merchant's."""

    merchant_order_no: str
    amount: int
    subject: str
    merchant_id: NotRequired[str]
    metadata: NotRequired[dict[str, str]]


class CombinedPayments:
    """Have several orders paid in one go; each becomes a payment of its own merchant."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        merchant_combined_no: str,
        method: Method,
        orders: Sequence[PartOrder],
        currency: str = "CNY",
        expires_in_s: int | None = None,
        customer_chooses: bool = False,
        **once: Unpack[Once],
    ) -> CombinedPayment:
        """Offer the orders as one payment; ``next_action`` says what the customer is to do.

        On the page at ``hosted_url`` the customer does it, and may take another way that can pay
        these orders where ``customer_chooses``.

        Raises:
            Refused, Unanswered
        """
        body = {
            "merchant_combined_no": merchant_combined_no,
            "method": method,
            "orders": list(orders),
            "currency": currency,
            "expires_in_s": expires_in_s,
            "customer_chooses": customer_chooses,
        }
        made = self._transport.post(path_of("combined_payments"), body, **once)
        return cast("CombinedPayment", made)

    def get(self, combined_id: str) -> CombinedPayment:
        """Return one combined payment."""
        found = self._transport.get(path_of("combined_payments", combined_id))
        return cast("CombinedPayment", found)

    def find(self, merchant_combined_no: str) -> CombinedPayment | None:
        """Return the combined payment with this number of yours, or None."""
        page = self._transport.get(
            path_of("combined_payments"), merchant_combined_no=merchant_combined_no
        )
        return cast("CombinedPayment", page["items"][0]) if page["items"] else None

    def close(self, combined_id: str) -> CombinedPayment:
        """Call all its orders off; a customer who paid first wins. Safe to repeat.

        Raises:
            Refused, Unanswered
        """
        closed = self._transport.post(path_of("combined_payments", combined_id, "close"))
        return cast("CombinedPayment", closed)

    def let(self, merchant_id: str) -> list[CombiningConsent]:
        """Let another merchant combine your orders with its own; return all who may.

        Raises:
            Refused, Unanswered
        """
        body = {"merchant_id": merchant_id}
        page = self._transport.post(path_of("combining_consents"), body)
        return cast("list[CombiningConsent]", page["items"])

    def let_no_more(self, merchant_id: str) -> list[CombiningConsent]:
        """Let another merchant combine your orders no more; return all who still may.

        Raises:
            Refused, Unanswered
        """
        body = {"merchant_id": merchant_id}
        page = self._transport.post(path_of("combining_consents", "withdraw"), body)
        return cast("list[CombiningConsent]", page["items"])

    def who_may(self) -> list[CombiningConsent]:
        """Return who may combine your orders with theirs."""
        page = self._transport.get(path_of("combining_consents"))
        return cast("list[CombiningConsent]", page["items"])

    def list(self, *, limit: int = 100) -> Iterator[CombinedPayment]:
        """Yield combined payments, newest first, fetching ``limit`` at a time."""
        return self._transport.pages(path_of("combined_payments"), limit=limit)
