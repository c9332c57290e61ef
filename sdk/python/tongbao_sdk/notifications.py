"""Events and the webhooks that tell of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Unpack, cast

from tongbao_sdk.models import DeliveryStatus, Page
from tongbao_sdk.replies import DeliveryAttempt, Event, WebhookDelivery, WebhookEndpoint
from tongbao_sdk.transport import Once, Transport, path_of


class Events:
    """What happened, for a program that missed a webhook or wants to compare."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, event_id: str) -> Event:
        """Return one event."""
        return cast("Event", self._transport.get(path_of("events", event_id)))

    def list(
        self,
        *,
        type: str | None = None,  # noqa: A002 - the API's own name of it
        resource_id: str | None = None,
        created_from: str | None = None,
        created_to: str | None = None,
        limit: int = 100,
    ) -> Iterator[Event]:
        """Yield events, newest first, fetching ``limit`` at a time."""
        return self._transport.pages(
            path_of("events"),
            type=type,
            resource_id=resource_id,
            created_from=created_from,
            created_to=created_to,
            limit=limit,
        )

    def page(
        self, *, cursor: str | None = None, limit: int | None = None, resource_id: str | None = None
    ) -> Page[Event]:
        """Return one page, for a program that keeps the cursor itself."""
        page = self._transport.get(
            path_of("events"), cursor=cursor, limit=limit, resource_id=resource_id
        )
        return cast("Page[Event]", page)


class WebhookEndpoints:
    """Where the platform tells the merchant's program what happened."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        url: str,
        *,
        event_types: Sequence[str] = (),
        description: str = "",
        api_version: str | None = None,
        **once: Unpack[Once],
    ) -> WebhookEndpoint:
        """Register an address, for these types of events or for all, in a version of the API.

        The reply shows the secret once, and the public key, which is all that `verify_webhook`
        needs. When the reply is lost the secret is lost with it: rotate the key.
        """
        body: dict[str, object] = {
            "url": url,
            "event_types": [*event_types],
            "description": description,
        }
        if api_version is not None:
            body["api_version"] = api_version
        made = self._transport.post(path_of("webhook_endpoints"), body, **once)
        return cast("WebhookEndpoint", made)

    def get(self, endpoint_id: str) -> WebhookEndpoint:
        """Return one address."""
        found = self._transport.get(path_of("webhook_endpoints", endpoint_id))
        return cast("WebhookEndpoint", found)

    def list(self) -> Iterator[WebhookEndpoint]:
        """Yield every address."""
        return self._transport.pages(path_of("webhook_endpoints"))

    def update(
        self,
        endpoint_id: str,
        *,
        url: str | None = None,
        event_types: Sequence[str] | None = None,
        description: str | None = None,
        enabled: bool | None = None,
        api_version: str | None = None,
    ) -> WebhookEndpoint:
        """Change what is given; ``enabled`` switches the address off and on."""
        body = {
            "url": url,
            "event_types": None if event_types is None else [*event_types],
            "description": description,
            "enabled": enabled,
            "api_version": api_version,
        }
        changed = self._transport.patch(path_of("webhook_endpoints", endpoint_id), body)
        return cast("WebhookEndpoint", changed)

    def delete(self, endpoint_id: str) -> None:
        """Remove an address and destroy its keys."""
        self._transport.delete(path_of("webhook_endpoints", endpoint_id))

    def rotate_key(
        self, endpoint_id: str, *, overlap_s: int = 86_400, **once: Unpack[Once]
    ) -> WebhookEndpoint:
        """Issue a new key; the old one signs beside it until the overlap is over."""
        path = path_of("webhook_endpoints", endpoint_id, "rotate_key")
        body = {"overlap_s": overlap_s}
        return cast("WebhookEndpoint", self._transport.post(path, body, **once))

    def test(self, endpoint_id: str, **once: Unpack[Once]) -> WebhookDelivery:
        """Have an event of type ``webhook.test`` sent to this address and no other."""
        path = path_of("webhook_endpoints", endpoint_id, "test")
        return cast("WebhookDelivery", self._transport.post(path, **once))

    def deliveries(
        self, endpoint_id: str, *, status: DeliveryStatus | None = None, limit: int = 100
    ) -> Iterator[WebhookDelivery]:
        """Yield what was sent to an address, newest first."""
        path = path_of("webhook_endpoints", endpoint_id, "deliveries")
        return self._transport.pages(path, status=status, limit=limit)

    def attempts(self, delivery_id: str) -> Iterator[DeliveryAttempt]:
        """Yield what each try of a delivery met, oldest first: why it did not come."""
        return self._transport.pages(path_of("webhook_deliveries", delivery_id, "attempts"))

    def replay(self, delivery_id: str, **once: Unpack[Once]) -> WebhookDelivery:
        """Send a delivery that has ended again."""
        path = path_of("webhook_deliveries", delivery_id, "replay")
        return cast("WebhookDelivery", self._transport.post(path, **once))
