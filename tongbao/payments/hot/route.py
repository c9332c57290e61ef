"""`POST /v1/payments` for the own wallet: one read and one group commit, whatever else goes on.

    requests ─► signatures ─► codes, keys and terms, asked for all that came meanwhile ─► risk
             ─► a group each: nonce, key with its answer, payment, attempt, change, event,
                code used up, day's spending counted, transfers ─► answers

Requests that arrive while others are being looked up are taken together, and their groups handed
to the ledger together: what a payment costs beyond its own rows is shared. Each is decided by
itself all the same. Nor does any wait for the risk hook's word on another: what is allowed goes on
at once, and what the hook is slow about is left to the ordinary route.

Anything that is not a fresh, good payment from the own wallet goes to the ordinary route. So does
what the group refused for a nonce, key or order number that somebody had taken in between: nothing
of it happened, and the ordinary route says what there is to say. A wallet that refuses makes a
failed payment, as there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime
from typing import Final, TypeVar

import msgspec
import structlog
from msgspec import Struct
from prometheus_client import Counter

from tongbao.infra.admission.authentication import (
    Authorization,
    NonceReplayed,
    RememberedKeys,
    SigningKey,
    check_signature,
    nonce_write,
    read_authorization,
)
from tongbao.infra.admission.rate_shares import RateLimits
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Write
from tongbao.infra.hot_routes import CREATED, Answer, HotRequest
from tongbao.infra.outbox import object_event_write
from tongbao.infra.web.idempotency import Idempotency, InFlight, canonical, taken, use_of
from tongbao.infra.web.request import decode
from tongbao.kernel.errors import Busy, Refusal
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import positive
from tongbao.ledger.model import Group
from tongbao.parties.accounts.model import ScannedCode
from tongbao.parties.accounts.payment_codes import CodeDigits, CodeReader, scanned_codes
from tongbao.parties.price_plans.model import inputs_at, plan_at, quote
from tongbao.payments.asking.terms import CreatePayment, new_payment
from tongbao.payments.collecting.model import WALLET, NewPayment, Verdict, allow_all, view_payment
from tongbao.payments.collecting.outcomes import Flow, end_event
from tongbao.payments.collecting.payments import (
    ORDER_TAKEN,
    birth_writes,
    paid_group,
    paid_rows,
    refused_rows,
    submit_paid,
)
from tongbao.payments.hot.terms import RecentTerms, Terms, Whose
from tongbao.payments.methods.asked import has_more_than_code
from tongbao.rails.channels.contract.orders import PayMode

PATH: Final = "/v1/payments"
TOGETHER_MAX: Final = 500
"""Requests that are looked up and handed to the ledger together, at most."""
JUDGED_WITHIN_S: Final = 0.25
"""What the risk hook has for one payment here: a customer at a till waits, and the ordinary route,
which asks it anew, waits as long as it takes."""

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
_log = structlog.get_logger()

T = TypeVar("T")

_TOO_SLOW: Final = Verdict(declined="risk.too_slow")
"""Tells nobody: the ordinary route asks again."""


class _Asked(Struct):
    """A request, to be answered once."""

    request: HotRequest
    tell: Callable[[Answer], None]
    told: bool = False

    def answer(self, answer: Answer) -> None:
        """Give the first answer; later ones are for nobody.

        Who cannot be told must not cost the others of its set theirs.
        """
        if self.told:
            return
        self.told = True
        try:
            self.tell(answer)
        except Exception:  # noqa: BLE001 - whatever it is
            _log.exception("wallet_payment_untold")


class _Proved(Struct, frozen=True):
    """What a known sender asks for, in a form that this route takes."""

    asked: _Asked
    said: Authorization
    key: SigningKey
    content: CreatePayment
    digits: CodeDigits
    use: Idempotency

    @property
    def whose(self) -> Whose:
        """Return whose terms apply."""
        return self.key.caller.merchant_id, self.key.caller.mode


class _Good(Struct, frozen=True):
    """A payment that nothing speaks against so far."""

    proved: _Proved
    payment: NewPayment
    code: ScannedCode
    meters: tuple[Write, ...] = ()


class _Draft(Struct, frozen=True):
    """A payment as it will stand in the books, and its answer then."""

    good: _Good
    group: Group
    answer: bytes


class WalletPayments:
    """Takes payments from the own wallet for one process."""

    def __init__(
        self,
        flow: Flow,
        keyring: Keyring,
        keys: RememberedKeys,
        *,
        limits: RateLimits | None = None,
        judged_within_s: float = JUDGED_WITHIN_S,
    ) -> None:
        self._flow = flow
        self._limits = limits
        self._judged_within_s = judged_within_s
        self._keys = keys
        self._short, self._handed_over = _TAKEN.labels("short"), _TAKEN.labels("handed over")
        self._reader = CodeReader(keyring)
        self._terms = RecentTerms(flow.db, keys.changes)
        self._waiting: list[_Asked] = []
        self._allowed: list[_Good] = []
        self._looking: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[object]] = set()

    def take(self, request: HotRequest, answered: Callable[[Answer], None]) -> None:
        """Answer with the payment as JSON once it is durable; None hands the request over.

        `Busy` is answered when the database or the ledger cannot say now; the request's key says
        later what became of it.
        """
        if _MARK not in request.signed.body:
            answered(None)
            return
        self._waiting.append(_Asked(request, answered))
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_on())

    async def _look_on(self) -> None:
        """Look up whoever waits, together, until nobody does; what is good is paid meanwhile."""
        try:
            while self._waiting:
                asked = self._waiting[:TOGETHER_MAX]
                self._waiting = self._waiting[TOGETHER_MAX:]
                good = await self._or_say_why(asked, self._look(asked))
                if self._flow.risk is allow_all:
                    self._go_on_with(good)
                    continue
                for each in good:
                    self._run(self._or_say_why([each.proved.asked], self._judge(each)))
        finally:
            self._looking = None

    def _go_on_with(self, good: Sequence[_Good]) -> None:
        """Pay these, those of a book together."""
        books: dict[int, list[_Good]] = {}
        for each in good:
            books.setdefault(each.payment.book, []).append(each)
        for together in books.values():
            self._run(self._pay_and_answer(together))

    def _run(self, work: Coroutine[object, object, object]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _or_say_why(self, asked: Sequence[_Asked], work: Awaitable[list[T]]) -> list[T]:
        """Return what comes of the work; where it fails, everybody without an answer gets one."""
        try:
            return await work
        except Busy as busy:
            for each in asked:
                each.answer(busy)
        except Exception:  # noqa: BLE001 - whatever it is, everybody is answered
            # Nobody knows what happened. The ordinary route asks the request's key, or fails alone.
            _log.exception("wallet_payments_failed")
            self._hand_over(asked)
        return []

    def _hand_over(self, asked: Sequence[_Asked]) -> None:
        self._handed_over.inc(sum(not each.told for each in asked))
        for each in asked:
            each.answer(None)

    # Looking

    async def _look(self, asked: Sequence[_Asked]) -> list[_Good]:
        """Return those that are good as far as can be seen before they are tried."""
        proved = await self._prove(asked)
        if not proved:
            self._hand_over(asked)
            return []
        codes, is_taken, terms = await asyncio.gather(
            scanned_codes(self._flow.db, [each.digits for each in proved], self._now()),
            taken(self._flow.db, [each.use for each in proved]),
            self._terms.of({each.whose for each in proved}),
        )
        good = [
            one
            for each in proved
            if not is_taken.get(each.use)
            and (one := self._fit(each, codes.get(each.digits), terms.get(each.whose))) is not None
        ]
        went_on = {id(each.proved.asked) for each in good}
        self._hand_over([each for each in asked if id(each) not in went_on])
        return good

    async def _prove(self, asked: Sequence[_Asked]) -> list[_Proved]:
        """Return what is signed as it should be and has the usual form."""
        said = [(each, _said(each.request)) for each in asked]
        keys = await self._keys.find_all({one.key_id for _, one in said if one is not None})
        found = [
            self._understand(each, one, keys.get(one.key_id))
            for each, one in said
            if one is not None
        ]
        proved = [each for each in found if each is not None]
        if self._limits is None:
            return proved
        # Only whoever is proved to have asked uses up what a merchant may ask.
        await self._limits.stock([each.key.caller for each in proved])
        # What is left goes to the ordinary route, which says when there is some again.
        return [each for each in proved if self._limits.try_take(each.key.caller)]

    def _understand(
        self, asked: _Asked, said: Authorization, key: SigningKey | None
    ) -> _Proved | None:
        if key is None or _SCOPE not in key.caller.scopes:
            return None
        signed = asked.request.signed
        try:
            check_signature(signed, said, key)
            content: CreatePayment = decode(signed.body, CreatePayment)
        except Refusal:
            return None
        digits = self._digits(content, key)
        if digits is None or len(content.metadata) > _METADATA_KEYS_MAX:
            return None
        body = canonical(PATH, signed.body)
        use = use_of(key.caller, _OPERATION, asked.request.idempotency_key, body)
        return _Proved(asked, said, key, content, digits, use)

    def _digits(self, content: CreatePayment, key: SigningKey) -> CodeDigits | None:
        method = content.method
        if method.mode is not PayMode.PAYMENT_CODE or method.channel not in {None, WALLET}:
            return None
        if content.terminal_id is not None:
            return None  # which counts there
        if has_more_than_code(method) or content.capture != "automatic" or content.capture_within_s:
            return None  # the ordinary route says what is wrong with that
        caller = key.caller
        return self._reader.read(method.auth_code or "", book=caller.book, mode=caller.mode)

    def _fit(self, proved: _Proved, code: ScannedCode | None, terms: Terms | None) -> _Good | None:
        """Return the payment under the merchant's terms, if code and merchant are good for it."""
        if code is None or terms is None or code.currency != proved.content.currency:
            return None
        content, caller = proved.content, proved.key.caller
        now = self._now()
        try:
            terms.merchant.check_active()
            money = positive(content.amount, content.currency)
            plan = plan_at(terms.plans, now)
            price = quote(plan, inputs_at(WALLET, PayMode.PAYMENT_CODE, money, now))
        except Refusal:
            return None
        if price.volume is not None:
            return None  # the ordinary route asks what the month has brought
        payment = new_payment(
            content,
            caller,
            money,
            (terms.merchant, price),
            (WALLET, caller.merchant_id),
            client_ip=proved.asked.request.client_ip,
        )
        return _Good(proved, payment, code)

    async def _judge(self, good: _Good) -> list[_Good]:
        """Ask the risk hook; what it declines, or is slow about, is the ordinary route's to say.

        What it allows is paid with all that it allows in the same turn of the loop.
        """
        try:
            async with asyncio.timeout(self._judged_within_s):
                verdict = await self._flow.risk(good.payment, good.code.wallet_id)
        except TimeoutError:
            verdict = _TOO_SLOW
        if verdict.declined is not None:
            self._hand_over([good.proved.asked])
            return []
        self._allowed.append(msgspec.structs.replace(good, meters=verdict.meters))
        if len(self._allowed) == 1:
            asyncio.get_running_loop().call_soon(self._pay_allowed)
        return []

    def _pay_allowed(self) -> None:
        allowed, self._allowed = self._allowed, []
        self._go_on_with(allowed)

    def _now(self) -> datetime:
        return self._flow.db.clock.now()

    # Paying

    async def _pay_and_answer(self, good: list[_Good]) -> None:
        asked = [each.proved.asked for each in good]
        refused = await self._or_say_why(asked, self._pay(good))
        await asyncio.gather(
            *[
                self._or_say_why([each.proved.asked], self._refuse(each, code))
                for each, code in refused
            ]
        )

    async def _pay(self, good: Sequence[_Good]) -> list[tuple[_Good, str]]:
        """Write the payments and their money in one commit, answer, and return the refused."""
        now = self._now()
        drafts = [_draft(each, now) for each in good]
        results = await submit_paid(self._flow, [each.group for each in drafts])
        refused, back = [], []
        for draft, result in zip(drafts, results, strict=True):
            if result.happened:
                draft.good.proved.asked.answer(draft.answer)
            elif result.status == "in_flight" or result.code in _FOR_THE_ORDINARY_ROUTE:
                back.append(draft.good.proved.asked)
            else:
                refused.append((draft.good, result.code or "wallet.declined"))
        self._hand_over(back)
        self._short.inc(len(good) - len(back))
        for key in {each.proved.key.caller.key_id: each.proved.key for each in good}.values():
            if not key.use_noted:
                await self._keys.note_use(key)
        return refused

    async def _refuse(self, good: _Good, code: str) -> list[tuple[_Good, str]]:
        """Write down the payment that the wallet has refused, with the answer it gets."""
        now = self._now()
        payment, attempt = refused_rows(good.payment, code, now)
        answer = msgspec.json.encode(view_payment(payment, attempt))
        proved = good.proved
        writes = (
            proved.use.answered_write(payment.id, now, CREATED, answer),
            nonce_write(proved.said),
            *birth_writes(payment, attempt),
        )
        if await self._flow.commits.write(writes) is None:  # with others that are refused now
            proved.asked.answer(answer)
            self._flow.nudge()
        else:
            self._hand_over([proved.asked])
        return []


def _said(request: HotRequest) -> Authorization | None:
    try:
        return read_authorization(request.signed.authorization)
    except Refusal:
        return None


def _draft(good: _Good, now: datetime) -> _Draft:
    """Return the payment as it stands once its group has happened."""
    payment, attempt = paid_rows(good.payment, new_id(), good.code, now)
    view = view_payment(payment, attempt)
    answer = msgspec.json.encode(view)
    companions = (
        good.proved.use.answered_write(payment.id, now, CREATED, answer),
        nonce_write(good.proved.said),
        *good.meters,
        object_event_write(end_event(payment, view), answer, now=now),
    )
    return _Draft(good, paid_group(payment, attempt, good.code, companions), answer)
