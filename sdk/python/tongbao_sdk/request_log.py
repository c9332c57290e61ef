"""What your own programs asked of the platform and were told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack, cast

from tongbao_sdk.replies import (
    LoggedRequest,
    RequestReplay,
)
from tongbao_sdk.transport import Once, Transport, path_of


class RequestLog:
    """Reads the request log, and sends requests of the sandbox again."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, request_id: str) -> LoggedRequest:
        """Return one request, by the id that came with its answer."""
        return cast("LoggedRequest", self._transport.get(path_of("request_log", request_id)))

    def list(
        self,
        *,
        method: str | None = None,
        route: str | None = None,
        status: int | None = None,
        code: str | None = None,
        key_id: str | None = None,
        created_from: str | None = None,
        created_to: str | None = None,
        limit: int = 100,
    ) -> Iterator[LoggedRequest]:
        """Yield requests, newest first, fetching ``limit`` at a time."""
        return self._transport.pages(
            path_of("request_log"),
            method=method,
            route=route,
            status=status,
            code=code,
            key_id=key_id,
            created_from=created_from,
            created_to=created_to,
            limit=limit,
        )

    def replay(self, request_id: str, **once: Unpack[Once]) -> RequestReplay:
        """Send a logged request once more; a refusal of it is part of the answer."""
        path = path_of("request_log", request_id, "replay")
        return cast("RequestReplay", self._transport.post(path, **once))
