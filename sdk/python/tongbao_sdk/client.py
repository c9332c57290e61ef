"""The client: one object per API key, one attribute per resource."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import httpx2 as httpx

from tongbao_sdk.models import Method, Page, Payment, PaymentStatus, Refund, RefundStatus
from tongbao_sdk.transport import Remember, Transport


class Tongbao:
    """A merchant's access to the platform. Safe to share between threads."""

    def __init__(
        self,
        url: str,
        *,
        key_id: str,
        secret: str,
        timeout_s: float = 30.0,
        tries_max: int = 4,
        client: httpx.Client | None = None,
    ) -> None:
        self.transport = Transport(
            url, key_id, secret, timeout_s=timeout_s, tries_max=tries_max, client=client
        )
        self.payments = Payments(self.transport)
        self.refunds = Refunds(self.transport)
        self.webhook_endpoints = WebhookEndpoints(self.transport)
        self.events = Listing(self.transport, "/v1/events")
        self.settlements = Settlements(self.transport, "/v1/settlements")
        self.payouts = Listing(self.transport, "/v1/payouts")
        self.wallets = Wallets(self.transport)

    def balance(self) -> dict[str, Any]:
        """Return what the merchant is owed: available, held by refunds, being settled."""
        return cast("dict[str, Any]", self.transport.get("/v1/balance"))

    def close(self) -> None:
        """Close the connections."""
        self.transport.close()


class Payments:
    """Collect money."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        merchant_order_no: str,
        amount: int,
        subject: str,
        method: Method,
        currency: str = "CNY",
        expires_in_s: int | None = None,
        metadata: dict[str, str] | None = None,
        idempotency_key: str | None = None,
        remember: Remember | None = None,
    ) -> Payment:
        """Collect ``amount`` minor units; what comes back says how far it got.

        Raises:
            Refused, Unanswered
        """
        body = {
            "merchant_order_no": merchant_order_no,
            "amount": amount,
            "currency": currency,
            "subject": subject,
            "method": method,
            "expires_in_s": expires_in_s,
            "metadata": metadata,
        }
        made = self._transport.post(
            "/v1/payments", body, idempotency_key=idempotency_key, remember=remember
        )
        return cast("Payment", made)

    def get(self, payment_id: str) -> Payment:
        """Return one payment."""
        return cast("Payment", self._transport.get(f"/v1/payments/{payment_id}"))

    def find(self, merchant_order_no: str) -> Payment | None:
        """Return the payment with this order number, or None."""
        page = self._transport.get("/v1/payments", merchant_order_no=merchant_order_no)
        return cast("Payment", page["items"][0]) if page["items"] else None

    def list(
        self,
        *,
        status: PaymentStatus | None = None,
        channel: str | None = None,
        created_from: str | None = None,
        created_to: str | None = None,
        metadata: dict[str, str] | None = None,
        limit: int = 100,
    ) -> Iterator[Payment]:
        """Yield payments, newest first, page after page."""
        found = self._transport.pages(
            "/v1/payments",
            status=status,
            channel=channel,
            created_from=created_from,
            created_to=created_to,
            metadata=metadata,
            limit=limit,
        )
        return cast("Iterator[Payment]", found)

    def close(self, payment_id: str, *, idempotency_key: str | None = None) -> Payment:
        """Call an unpaid payment off; a customer who paid first wins.

        Raises:
            Refused, Unanswered
        """
        closed = self._transport.post(
            f"/v1/payments/{payment_id}/close", idempotency_key=idempotency_key
        )
        return cast("Payment", closed)

    def refund(
        self,
        payment_id: str,
        *,
        merchant_refund_no: str,
        amount: int,
        currency: str = "CNY",
        reason: str = "",
        idempotency_key: str | None = None,
        remember: Remember | None = None,
    ) -> Refund:
        """Give money back, in part or in full.

        Raises:
            Refused, Unanswered
        """
        body = {
            "merchant_refund_no": merchant_refund_no,
            "amount": amount,
            "currency": currency,
            "reason": reason,
        }
        made = self._transport.post(
            f"/v1/payments/{payment_id}/refunds",
            body,
            idempotency_key=idempotency_key,
            remember=remember,
        )
        return cast("Refund", made)


class Refunds:
    """Read refunds."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, refund_id: str) -> Refund:
        """Return one refund."""
        return cast("Refund", self._transport.get(f"/v1/refunds/{refund_id}"))

    def list(
        self,
        *,
        payment_id: str | None = None,
        status: RefundStatus | None = None,
        merchant_refund_no: str | None = None,
        limit: int = 100,
    ) -> Iterator[Refund]:
        """Yield refunds, newest first, page after page."""
        found = self._transport.pages(
            "/v1/refunds",
            payment_id=payment_id,
            status=status,
            merchant_refund_no=merchant_refund_no,
            limit=limit,
        )
        return cast("Iterator[Refund]", found)


class Listing:
    """A resource that is only read."""

    def __init__(self, transport: Transport, path: str) -> None:
        self._transport = transport
        self._path = path

    def get(self, resource_id: str) -> dict[str, Any]:
        """Return one."""
        return cast("dict[str, Any]", self._transport.get(f"{self._path}/{resource_id}"))

    def list(self, **filters: object) -> Iterator[dict[str, Any]]:
        """Yield all that match, newest first, page after page."""
        return self._transport.pages(self._path, **{"limit": 100, **filters})

    def page(self, **filters: object) -> Page:
        """Return one page."""
        return cast("Page", self._transport.get(self._path, **filters))


class Settlements(Listing):
    """What was settled to the merchant, day by day."""

    def lines(self, settlement_id: str) -> Iterator[dict[str, Any]]:
        """Yield every movement a settlement is made of."""
        return self._transport.pages(f"{self._path}/{settlement_id}/lines", limit=100)


class WebhookEndpoints:
    """Where the platform tells the merchant's program what happened."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self, url: str, *, event_types: Sequence[str] = (), idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Register an address; the reply shows its secret once and its public key."""
        body = {"url": url, "event_types": list(event_types)}
        made = self._transport.post("/v1/webhook_endpoints", body, idempotency_key=idempotency_key)
        return cast("dict[str, Any]", made)

    def list(self) -> list[dict[str, Any]]:
        """Return every address."""
        return list(self._transport.pages("/v1/webhook_endpoints"))

    def deliveries(self, endpoint_id: str) -> Iterator[dict[str, Any]]:
        """Yield what was sent to an address, newest first."""
        return self._transport.pages(f"/v1/webhook_endpoints/{endpoint_id}/deliveries", limit=100)

    def replay(self, delivery_id: str) -> dict[str, Any]:
        """Send a delivery again."""
        again = self._transport.post(f"/v1/webhook_deliveries/{delivery_id}/replay")
        return cast("dict[str, Any]", again)


class Wallets:
    """Wallets the merchant opens for its own users."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def open(self, *, idempotency_key: str | None = None, **holder: object) -> dict[str, Any]:
        """Open a wallet."""
        made = self._transport.post("/v1/wallets", holder, idempotency_key=idempotency_key)
        return cast("dict[str, Any]", made)

    def get(self, wallet_id: str) -> dict[str, Any]:
        """Return one wallet with its balance."""
        return cast("dict[str, Any]", self._transport.get(f"/v1/wallets/{wallet_id}"))

    def payment_code(self, wallet_id: str) -> dict[str, Any]:
        """Return a one-time code the wallet's holder shows at the counter."""
        made = self._transport.post(f"/v1/wallets/{wallet_id}/payment_codes")
        return cast("dict[str, Any]", made)

    def top_up(self, wallet_id: str, *, amount: int, currency: str = "CNY") -> dict[str, Any]:
        """Put test money into a sandbox wallet."""
        body = {"amount": amount, "currency": currency}
        made = self._transport.post(f"/v1/test_helpers/wallets/{wallet_id}/top_up", body)
        return cast("dict[str, Any]", made)
