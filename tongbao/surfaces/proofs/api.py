"""The route of receipts, and what is published to everybody: the keys, and the verifier."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from litestar import get

from tongbao.controls.audit_log.checkpoints import list_checkpoints
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.problem import MethodNotAllowed, RouteUnknown
from tongbao.kernel.ids import parse
from tongbao.ledger.proofs.model import (
    LeavesArchived,
    ProofBroken,
    Proofs,
    Receipt,
    ReceiptNotReady,
    TransferUnproven,
)
from tongbao.ledger.proofs.receipts import receipt_for, verifier_source
from tongbao.ledger.proofs.signers import published
from tongbao.payments.collecting.queries import PaymentNotFound, payment_of_merchant

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]
Asgi = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

AUDIT_PATH = "/audit/checkpoint"
KEYS_PATH = "/ledger/keys"
VERIFIER_PATH = "/ledger/verifier"


@get(
    "/v1/payments/{payment_id:str}/receipt",
    opt=needs(
        "payments:read",
        refuses=[
            PaymentNotFound,
            TransferUnproven,
            ReceiptNotReady,
            LeavesArchived,
            ProofBroken,
        ],
    ),
)
async def get_receipt(payment_id: str, db: Db, keyring: Keyring, caller: Caller) -> Receipt:
    """Return the proof that the payment's postings are in the book, for ever.

    It holds a checkpoint of the book, signed within a minute or so of the payment, and the way
    from each transfer to its root. Sides of accounts that are not the merchant's are sealed. Check
    it with the program at `/ledger/verifier` and a key from `/ledger/keys`.
    """
    payment = await payment_of_merchant(
        db, parse("pay", payment_id), caller.merchant_id, caller.mode
    )
    proofs = Proofs(db, keyring)
    return await receipt_for(proofs, payment.book, payment.id, reader=caller.merchant_id)


ROUTES = [get_receipt]


def publications(db: Db) -> dict[str, Asgi]:
    """Return what everybody may read: keys of checkpoints, the verifier, the audit log's end."""

    async def audit_log() -> bytes:
        page = await list_checkpoints(db, limit=1)
        return "".join(each.note for each in page.items).encode()

    async def keys() -> bytes:
        return msgspec.json.encode(await published(db))

    async def verifier() -> bytes:
        return verifier_source().encode()

    return {
        AUDIT_PATH: _document(AUDIT_PATH, "text/plain; charset=utf-8", audit_log),
        KEYS_PATH: _document(KEYS_PATH, "application/json", keys),
        VERIFIER_PATH: _document(VERIFIER_PATH, "text/x-python; charset=utf-8", verifier),
    }


def _document(path: str, media_type: str, content: Callable[[], Awaitable[bytes]]) -> Asgi:
    async def serve(scope: MutableMapping[str, Any], _receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            raise MethodNotAllowed(allow="GET")
        if scope["path"] != path:
            raise RouteUnknown
        body = await content()
        headers = [
            (b"content-type", media_type.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return serve
