"""Where channels send their callbacks: mounted beside the API, with rights of its own.

The address holds an unguessable token of the channel account; the signature on the raw bytes
decides whether what comes there is believed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from tongbao.infra.tasks import Hands
from tongbao.kernel.errors import NotFound
from tongbao.payments.callbacks.inbox import receive
from tongbao.payments.collecting.outcomes import Flow
from tongbao.rails.channels.accounts import ChannelAccountNotFound
from tongbao.rails.channels.contract.callbacks import CallbackReply
from tongbao.rails.channels.contract.orders import ChannelAccount

PREFIX: Final = "/callbacks"

AccountOfToken = Callable[[str], Awaitable[ChannelAccount]]


class CallbackAddressUnknown(NotFound):
    """Nobody receives callbacks at this address."""

    code = "callback.address_unknown"
    advice = "Use the notification address of the channel account, unchanged."
    advice_zh = "请使用渠道账户的通知地址，不得改动。"


class CallbackApp:
    """An ASGI application that receives callbacks at ``/callbacks/{channel}/{token}``."""

    def __init__(self, flow: Flow, account_of_token: AccountOfToken, hands: Hands) -> None:
        self._flow = flow
        self._hands = hands
        self._account_of_token = account_of_token

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        _receive: Callable[[], Awaitable[Any]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Receive one callback, and answer.

        Raises:
            CallbackAddressUnknown
        """
        await _send(send, await self.receive(scope, scope["state"]["body"]))

    async def receive(self, scope: MutableMapping[str, Any], body: bytes) -> CallbackReply:
        """Receive one callback and return what the channel wants to hear.

        Raises:
            CallbackAddressUnknown
        """
        account = await self._account(scope["path"], scope["method"])
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        return await receive(self._flow, account, headers, body, hands=self._hands)

    async def _account(self, path: str, method: str) -> ChannelAccount:
        parts = path.removeprefix(PREFIX).strip("/").split("/")
        if method != "POST" or len(parts) != 2:
            raise CallbackAddressUnknown
        channel, token = parts
        try:
            account = await self._account_of_token(token)
        except ChannelAccountNotFound:
            raise CallbackAddressUnknown from None
        if account.channel != channel:
            raise CallbackAddressUnknown
        return account


async def _send(
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]], reply: CallbackReply
) -> None:
    headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
    headers.append((b"content-length", str(len(reply.body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
