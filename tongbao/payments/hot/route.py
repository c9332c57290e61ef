"""`POST /v1/payments` for the own wallet: one read and one group commit, whatever else goes on.

    request ─► signature ─► terms (remembered) ─► code and key (asked for many at once)
            ─► risk ─► one group: nonce, key with its answer, payment, attempt, change, event,
               code used up, day's spending counted, transfers ─► answer

Anything that is not a fresh, good payment from the own wallet goes to the ordinary route. So does
what the group refused for a nonce, key or order number that somebody had taken in between: nothing
of it happened, and the ordinary route says what there is to say. A wallet that refuses makes a
failed payment, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
from msgspec import Struct
from prometheus_client import Counter

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Write, write_all
from tongbao.infra.lookups import Lookups
from tongbao.infra.outbox import object_event_write
from tongbao.infra.web.authentication import (
    NonceReplayed,
    SigningKey,
    SigningKeys,
    nonce_write,
    prove,
)
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.idempotency import Idempotency, InFlight, canonical, taken, use_of
from tongbao.infra.web.request import CREATED, HotRequest, decode
from tongbao.kernel.errors import Busy, Refusal
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import positive
from tongbao.parties.accounts.model import ScannedCode
from tongbao.parties.accounts.payment_codes import CodeDigits, CodeReader, scanned_codes
from tongbao.parties.merchants.model import fee_for, plan_at
from tongbao.payments.collecting.api import CreatePayment, new_payment
from tongbao.payments.collecting.model import WALLET, NewPayment, view_payment
from tongbao.payments.collecting.outcomes import Flow, end_event
from tongbao.payments.collecting.payments import (
    ORDER_TAKEN,
    birth_writes,
    paid_rows,
    refused_rows,
    submit_paid,
)
from tongbao.payments.hot.terms import RecentTerms
from tongbao.payments.methods.asked import has_more_than_code
from tongbao.rails.channels.contract import PayMode

PATH: Final = "/v1/payments"
_OPERATION: Final = f"POST {PATH}"
_SCOPE: Final = "payments:write"
_MARK: Final = b'"auth_code"'
_METADATA_KEYS_MAX: Final = 50
_FOR_THE_ORDINARY_ROUTE: Final = frozenset({NonceReplayed.code, InFlight.code, ORDER_TAKEN})
"""Refusals of a group that say nothing about the wallet."""

_TAKEN: Final = Counter(
    "tongbao_wallet_payments",
    "Requests to collect from the own wallet, by the way they took",
    ["way"],
)


class _Good(Struct, frozen=True):
    """A payment that nothing speaks against so far."""

    asked: NewPayment
    code: ScannedCode
    use: Idempotency
    nonce: Write
    meters: tuple[Write, ...]
    key: SigningKey


class WalletPayments:
    """Takes payments from the own wallet for one process."""

    def __init__(self, flow: Flow, keyring: Keyring, keys: SigningKeys) -> None:
        self._flow = flow
        self._keys = keys
        self._short, self._handed_over = _TAKEN.labels("short"), _TAKEN.labels("handed over")
        self._reader = CodeReader(keyring)
        self._terms = RecentTerms(flow.db)
        self._codes = Lookups(partial(_scanned, flow.db))
        self._taken = Lookups(partial(taken, flow.db))

    async def __call__(self, request: HotRequest) -> bytes | None:
        """Return the payment as JSON once it is durable; None hands the request over.

        Raises:
            Busy: the database or the ledger cannot say now; the key says later what became of it.
        """
        if _MARK not in request.signed.body:
            return None
        try:
            good = await self._look(request)
        except Busy:
            raise
        except Refusal:
            return None
        answer = None if good is None else await self._pay(good)
        (self._handed_over if answer is None else self._short).inc()
        return answer

    async def _look(self, request: HotRequest) -> _Good | None:
        """Return the payment when it is good as far as can be seen before it is tried."""
        said, key = await prove(request.signed, self._keys)
        caller = key.caller
        data: CreatePayment = decode(request.signed.body, CreatePayment)
        digits = self._digits(data, caller)
        if digits is None or _SCOPE not in caller.scopes:
            return None
        body = canonical(PATH, request.signed.body)
        use = use_of(caller, _OPERATION, request.idempotency_key, body)
        code_found, is_taken = self._codes.get(digits), self._taken.get(use)
        asked = await self._asked(data, caller, request.client_ip)
        code = await code_found
        if await is_taken or code is None or asked is None:
            return None
        if code.currency != asked.money.currency:
            return None
        verdict = await self._flow.risk(asked, code.wallet_id)
        if verdict.declined is not None:
            return None
        return _Good(asked, code, use, nonce_write(said), verdict.meters, key)

    def _digits(self, data: CreatePayment, caller: Caller) -> CodeDigits | None:
        method = data.method
        if method.mode is not PayMode.PAYMENT_CODE or method.channel not in {None, WALLET}:
            return None
        if has_more_than_code(method) or data.capture != "automatic" or data.capture_within_s:
            return None  # the ordinary route says what is wrong with that
        return self._reader.read(method.auth_code or "", book=caller.book, mode=caller.mode)

    async def _asked(
        self, data: CreatePayment, caller: Caller, client_ip: str
    ) -> NewPayment | None:
        terms = await self._terms.of((caller.merchant_id, caller.mode))
        if terms is None or len(data.metadata) > _METADATA_KEYS_MAX:
            return None
        terms.merchant.check_active()
        money = positive(data.amount, data.currency)
        now = self._flow.db.clock.now()
        fee = fee_for(terms.plans, WALLET, PayMode.PAYMENT_CODE, money, now)
        agreed = (terms.merchant, plan_at(terms.plans, now), fee)
        return new_payment(
            data, caller, money, agreed, (WALLET, caller.merchant_id), client_ip=client_ip
        )

    async def _pay(self, good: _Good) -> bytes | None:
        """Write the payment and its money in one commit, with the answer it gets."""
        now = self._flow.db.clock.now()
        payment, attempt = paid_rows(good.asked, new_id(), good.code, now)
        view = view_payment(payment, attempt)
        answer = msgspec.json.encode(view)
        companions = (
            good.use.answered_write(payment.id, now, CREATED, answer),
            good.nonce,
            *good.meters,
            object_event_write(end_event(payment, view), answer, now=now),
        )
        result = await submit_paid(self._flow, payment, attempt, good.code, companions=companions)
        if not result.happened:
            if result.status == "in_flight" or result.code in _FOR_THE_ORDINARY_ROUTE:
                return None
            return await self._refuse(good, result.code or "wallet.declined")
        if not good.key.use_noted:
            await self._keys.note_use(good.key)
        return answer

    async def _refuse(self, good: _Good, code: str) -> bytes | None:
        """Write down the payment that the wallet has refused, with the answer it gets."""
        now = self._flow.db.clock.now()
        payment, attempt = refused_rows(good.asked, code, now)
        answer = msgspec.json.encode(view_payment(payment, attempt))
        writes = (
            good.use.answered_write(payment.id, now, CREATED, answer),
            good.nonce,
            *birth_writes(payment, attempt),
        )
        async with self._flow.db.begin("payments") as tx:
            refused = await write_all(tx, writes)
        if refused is not None:
            return None
        self._flow.nudge()
        return answer


async def _scanned(db: Db, asked: Sequence[CodeDigits]) -> dict[CodeDigits, ScannedCode]:
    return await scanned_codes(db, asked, db.clock.now())
