"""`POST /v1/payments` at a channel: the intention and the channel's answer are all that is written.

    request ─► signature ─► remembered key and terms ─► routing
            ─► commit: nonce, key, payment, attempt, change, chase; and the terms still stand
            ─► the channel's call
            ─► commit: what it said, and the answer under the key ─► answer

What a request costs beyond its own rows is shared with those that commit at the same moment. The
terms are remembered for a moment, and the first commit refuses where they have changed meanwhile.

Anything that is not a fresh, good payment goes to the ordinary route, and so does what the first
commit refused: nothing of it happened, and the ordinary route says what there is to say. After that
commit there is an answer, or one that says to ask again under the same key, as there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace
from prometheus_client import Counter

from tongbao.infra.admission.authentication import (
    RememberedKeys,
    SigningKey,
    check_signature,
    nonce_insert,
    read_authorization,
)
from tongbao.infra.admission.rate_shares import RateLimits
from tongbao.infra.db import Db, Write
from tongbao.infra.hot_routes import CREATED, Answer, HotRequest
from tongbao.infra.lookups import Remembered
from tongbao.infra.web.idempotency import Idempotency, canonical, let_go, use_of
from tongbao.infra.web.problem import InternalError, TooManyRequests
from tongbao.infra.web.request import decode
from tongbao.kernel.errors import Busy, Refusal
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money, positive
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.merchants import still_serves
from tongbao.parties.merchants.model import TERMS, Merchant
from tongbao.parties.price_plans.model import PricePlan, inputs_at, plan_at
from tongbao.parties.price_plans.queries import price_plans_of, quote_with_volume, still_in_force
from tongbao.payments.asking.terms import CreatePayment, asked_of_router, new_payment
from tongbao.payments.collecting.chase import collect
from tongbao.payments.collecting.decisions import begun
from tongbao.payments.collecting.model import (
    WALLET,
    Attempt,
    NewPayment,
    Payment,
    PaymentState,
    view_payment,
)
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.payments import (
    OrderTaken,
    UseRefused,
    check_offered,
    commit_intention,
)
from tongbao.payments.hot.terms import both_modes
from tongbao.payments.methods.asked import check_method
from tongbao.payments.routing.model import PlaceTaken
from tongbao.rails.channels.contract.orders import PayMode

PATH: Final = "/v1/payments"
TERMS_KEPT_S: Final = 60.0
"""How long terms that are not changed are remembered, see `changes`. No payment is made under
others: the commit looks again."""
TERMS_CHANGED: Final = "payment.terms_changed"

_OPERATION: Final = f"POST {PATH}"
_SCOPE: Final = "payments:write"
_METADATA_KEYS_MAX: Final = 50
_MODES: Final = frozenset(
    {PayMode.QR, PayMode.IN_APP, PayMode.APP, PayMode.H5, PayMode.WEB},
)

_TAKEN: Final = Counter(
    "tongbao_channel_payments",
    "Requests to collect at a channel, by the way they took",
    ["way"],
)
_log = structlog.get_logger()

Whose = tuple[UUID, Mode]


class Terms(Struct, frozen=True):
    """What was agreed with a merchant in one mode, and which account serves it at each channel."""

    merchant: Merchant
    plans: Sequence[PricePlan]
    own: dict[str, UUID]


class _Proved(Struct, frozen=True):
    """What a known sender asks for, in a form that this route takes."""

    key: SigningKey
    content: CreatePayment
    use: Idempotency
    nonce: Write
    client_ip: str


class ChannelPayments:
    """Takes payments at channels for one process."""

    def __init__(self, flow: Flow, keys: RememberedKeys, limits: RateLimits | None = None) -> None:
        self._flow = flow
        self._limits = limits
        self._keys = keys
        self._terms = Remembered(
            partial(_terms, flow.db), seconds=TERMS_KEPT_S, changes=keys.changes
        )
        self._terms.forget_with(TERMS, both_modes)
        self._short, self._handed_over = _TAKEN.labels("short"), _TAKEN.labels("handed over")
        self._running: set[asyncio.Task[None]] = set()

    def take(self, request: HotRequest, answered: Callable[[Answer], None]) -> None:
        """Answer with the payment as JSON once the channel's answer is kept; or hand it over."""
        task = asyncio.create_task(self._take(request, answered))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _take(self, request: HotRequest, answered: Callable[[Answer], None]) -> None:
        answer: Answer = InternalError()
        try:
            answer = await self._answer(request)
        finally:
            (self._handed_over if answer is None else self._short).inc()
            answered(answer)

    async def _answer(self, request: HotRequest) -> Answer:
        try:
            begun = await self._begin(request)
        except (PlaceTaken, UseRefused, OrderTaken, TooManyRequests):
            return None
        except Busy as busy:  # perhaps it was begun: the request's key says so later
            return busy
        except Refusal:
            return None  # the ordinary route says it, and keeps it under the key
        except Exception:  # noqa: BLE001 - whatever it is, the ordinary route fails alone
            _log.exception("channel_payment_not_begun")
            return None
        return None if begun is None else await self._collect(*begun)

    async def _begin(
        self, request: HotRequest
    ) -> tuple[Idempotency, NewPayment, Payment, Attempt] | None:
        """Commit the intention; None where it is not for this route, and nothing has happened."""
        proved = await self._prove(request)
        if proved is None:
            return None
        payment_id = new_id()
        asked = await self._under_terms(proved, payment_id)
        if asked is None:
            return None
        await check_offered(self._flow, asked)
        if self._limits is not None:
            await self._limits.take(proved.key.caller, 1)
        now = self._flow.db.clock.now()
        payment, attempt = begun(asked, payment_id, now, PaymentState.CREATED)
        try:
            await commit_intention(self._flow, payment, attempt, asked, proved.use.write)
        except UseRefused:
            self._terms.forget(_whose(proved))
            raise
        except Busy:  # perhaps it is written, and whoever asks again shall not wait for a lease
            await let_go(self._flow.db, proved.use)
            raise
        if not proved.key.use_noted:
            await self._keys.note_use(proved.key)
        return proved.use, asked, payment, attempt

    async def _prove(self, request: HotRequest) -> _Proved | None:
        signed = request.signed
        said = read_authorization(signed.authorization)
        key = await self._keys.find(said.key_id)
        if key is None or _SCOPE not in key.caller.scopes:
            return None
        check_signature(signed, said, key)
        content: CreatePayment = decode(signed.body, CreatePayment)
        if not _is_usual(content):
            return None
        body = canonical(PATH, signed.body)
        use = use_of(key.caller, _OPERATION, request.idempotency_key, body)
        return _Proved(key, content, use, nonce_insert(said), request.client_ip)

    async def _under_terms(self, proved: _Proved, payment_id: UUID) -> NewPayment | None:
        """Return the payment as it was agreed with its merchant and goes where routing says."""
        content, caller, whose = proved.content, proved.key.caller, _whose(proved)
        check_method(content.method)
        terms = self._terms.known(whose) or await self._terms.get(whose)
        if terms is None:
            return None
        terms.merchant.check_active()
        money, now = positive(content.amount, content.currency), self._flow.db.clock.now()
        what: tuple[str | None, Money] = (content.method.channel, money)
        decision = await self._flow.router.place(
            asked_of_router(content, caller, what, now=now, payment_id=payment_id)
        )
        if decision is not None:
            channel, account_id = decision.chosen.channel, decision.chosen.account_id
            served = None  # by whom the rules say
        else:
            channel = content.method.channel or ""
            found = terms.own.get(channel)
            if found is None:
                return None
            account_id = served = found
        plan = plan_at(terms.plans, now)
        inputs = inputs_at(channel, content.method.mode, money, now)
        price = await quote_with_volume(self._flow.db, caller.book, plan, inputs)
        if plan is None:
            return None
        over = (channel, account_id)
        asked = new_payment(
            content, caller, money, (terms.merchant, price), over, client_ip=proved.client_ip
        )
        stands = (
            still_serves(terms.merchant, caller.mode, (channel, served), refusal=TERMS_CHANGED),
            still_in_force(plan, now, refusal=TERMS_CHANGED),
        )
        return replace(asked, decision=decision, uses=(proved.nonce,), stands=stands)

    async def _collect(
        self, use: Idempotency, asked: NewPayment, payment: Payment, attempt: Attempt
    ) -> Answer:
        """Ask the channel and return the answer, which was kept with what the channel said."""
        answer = b""

        def answering(payment: Payment, attempt: Attempt) -> tuple[Write, ...]:
            nonlocal answer
            answer = msgspec.json.encode(view_payment(payment, attempt))
            return (use.answer_write(CREATED, answer, self._flow.db.clock.now()),)

        try:
            await collect(self._flow, payment, attempt, asked, also=answering)
        except Exception as failure:  # noqa: BLE001 - it was begun: somebody must be told
            await let_go(self._flow.db, use)
            if isinstance(failure, Busy):
                return failure
            _log.exception("channel_payment_failed")
            return InternalError()
        return answer


def _is_usual(content: CreatePayment) -> bool:
    """Whether it asks for nothing that is looked up, counted or kept in another place."""
    method = content.method
    return (
        method.mode in _MODES
        and method.channel != WALLET
        and method.auth_code is None
        and method.agreement_id is None
        and method.card is None
        and content.terminal_id is None
        and content.capture == "automatic"
        and content.capture_within_s is None
        and len(content.metadata) <= _METADATA_KEYS_MAX
    )


def _whose(proved: _Proved) -> Whose:
    return proved.key.caller.merchant_id, proved.key.caller.mode


async def _terms(db: Db, asked: Sequence[Whose]) -> dict[Whose, Terms]:
    theirs = await merchants.merchants_with_ids(db, [each for each, _ in asked])
    plans = await price_plans_of(db, asked)
    return {
        whose: Terms(theirs[whose[0]], plans[whose], await merchants.channels_of(db, *whose))
        for whose in asked
        if whose[0] in theirs
    }
