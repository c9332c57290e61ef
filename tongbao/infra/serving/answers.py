"""What every answer carries, and a problem in place of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tongbao.infra.admission.rate_limits import Standing
from tongbao.infra.request_log.model import KEPT_BYTES_MAX
from tongbao.infra.serving.asgi import Message, Send
from tongbao.infra.web.interface_numbers import API_ID_HEADER, InterfaceNumber
from tongbao.infra.web.problem import ANSWER_HEADERS, Rendered

_CREATED: Final = 201


class Reply:
    """Sends an answer with the headers every answer has, and remembers that it began."""

    def __init__(
        self, send: Send, request_id: str, state: Mapping[str, Any], bank_code: str
    ) -> None:
        self._send = send
        self._state = state
        self._bank_code = bank_code
        self._request_id = request_id.encode()
        self.status: int | None = None
        self.body = b""  # as much of it as the request log has use for

    async def __call__(self, message: Message) -> None:
        """Send a message of the application."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            present = {name.lower() for name, _ in headers}
            headers += [pair for pair in ANSWER_HEADERS if pair[0] not in present]
            headers.append((b"x-request-id", self._request_id))
            standing: Standing | None = self._state.get("standing")
            headers += standing.headers if standing is not None else ()
            interface: InterfaceNumber | None = self._state.get("interface")
            if interface is not None:
                api_id = interface.api_id(self._bank_code)
                headers.append((API_ID_HEADER.encode(), api_id.encode()))
            message = {**message, "headers": headers}
        elif len(self.body) <= KEPT_BYTES_MAX:
            self.body += message.get("body", b"")
        await self._send(message)

    async def created(self, body: bytes) -> None:
        """Answer with what was created, in JSON."""
        self.status = _CREATED
        self.body = body
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *ANSWER_HEADERS,
            (b"x-request-id", self._request_id),
        ]
        await self._send({"type": "http.response.start", "status": _CREATED, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def problem(self, problem: Rendered) -> None:
        """Answer with a problem, unless an answer already began."""
        if self.status is not None:
            return
        headers = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
        headers.append((b"content-length", str(len(problem.body)).encode()))
        await self({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self({"type": "http.response.body", "body": problem.body})
