"""The shapes of what the API takes and gives, as TypedDicts: plain dicts with checked keys.

Amounts are whole minor units (1999 is 19.99 yuan), moments are RFC 3339 texts. Fields are only ever
added, so a program reads what it knows and ignores the rest.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar

from tongbao_sdk.prices import PricePlan

T = TypeVar("T")

Mode = Literal["live", "sandbox"]
Channel = Literal["wechat_pay", "alipay", "unionpay", "cards", "wallet"]
PayMode = Literal["qr", "payment_code", "in_app", "app", "h5", "web", "agreement", "card"]
PaymentStatus = Literal[
    "created",
    "pending",
    "unknown",
    "authorised",
    "capturing",
    "voiding",
    "succeeded",
    "failed",
    "closed",
    "voided",
]
AgreementStatus = Literal["created", "pending", "unknown", "active", "ending", "ended", "failed"]
Period = Literal["day", "week", "month", "year"]
CaptureMode = Literal["automatic", "manual"]
RefundStatus = Literal["requested", "pending", "unknown", "succeeded", "failed"]
PayoutStatus = Literal["requested", "pending", "unknown", "succeeded", "failed", "returned"]
DeliveryStatus = Literal["pending", "succeeded", "failed"]


class Page(TypedDict, Generic[T]):
    """One page of a list, newest first."""

    items: list[T]
    next_cursor: str | None


class Card(TypedDict):
    """What a terminal read of a card; the platform keeps none of it."""

    number: str
    expiry: str
    entry: str
    terminal: str
    merchant: str
    track2: NotRequired[str]
    sequence: NotRequired[str]
    chip_hex: NotRequired[str]
    pin_block_hex: NotRequired[str]


class TokenUsed(TypedDict):
    """A card token; one on a device comes with what its limited-use key makes of the payment."""

    number: str
    key_number: NotRequired[int]
    counter: NotRequired[int]
    cryptogram: NotRequired[str]


class CardBalance(TypedDict):
    """One balance of a card; ``amount`` is negative when it is owed."""

    account: str
    kind: Literal["ledger", "available", "other"]
    amount: int
    currency: str


class CardBalances(TypedDict):
    """What a card has, as its issuer says."""

    object: Literal["card_balances"]
    balances: list[CardBalance]


class Method(TypedDict):
    """How to collect. A payment code says by itself which channel it is of."""

    mode: PayMode
    channel: NotRequired[Channel]
    auth_code: NotRequired[str]
    payer_id: NotRequired[str]
    return_url: NotRequired[str]
    app_id: NotRequired[str]
    agreement_id: NotRequired[str]
    card: NotRequired[Card]
    card_token: NotRequired[TokenUsed]


class MethodUsed(TypedDict):
    """How a payment is collected."""

    channel: str
    mode: PayMode
    agreement_id: NotRequired[str]
    combined_payment_id: NotRequired[str]
    parking_visit_id: NotRequired[str]


class ShowQr(TypedDict):
    """Draw ``code_url`` as a QR code for the customer to scan."""

    type: Literal["show_qr"]
    code_url: str


class Redirect(TypedDict):
    """Send the customer's browser there."""

    type: Literal["redirect"]
    url: str


class SubmitForm(TypedDict):
    """Let the customer's browser post these fields there."""

    type: Literal["submit_form"]
    url: str
    fields: dict[str, str]


class OpenApp(TypedDict):
    """Hand these to the channel's own code, in its page or in the merchant's app."""

    type: Literal["open_app"]
    parameters: dict[str, str]


NextAction = ShowQr | Redirect | SubmitForm | OpenApp


class Failure(TypedDict):
    """Why a payment failed, for the program and for the customer."""

    code: str
    message: str
    message_zh: str


class Payment(TypedDict):
    """One payment. ``unknown`` is a state: it may have happened, and a webhook tells."""

    id: str
    object: Literal["payment"]
    mode: Mode
    merchant_order_no: str
    amount: int
    currency: str
    subject: str
    method: MethodUsed
    status: PaymentStatus
    version: int
    amount_captured: int
    amount_refunded: int
    fee: int
    fee_returned: int
    created_at: str
    expires_at: str
    metadata: dict[str, str]
    next_action: NotRequired[NextAction]
    failure: NotRequired[Failure]
    close_reason: NotRequired[Literal["merchant", "expired", "not_paid"]]
    succeeded_at: NotRequired[str]
    ended_at: NotRequired[str]
    capture: NotRequired[CaptureMode]
    amount_authorised: NotRequired[int]
    amount_capturing: NotRequired[int]
    amount_disputed: NotRequired[int]
    authorised_at: NotRequired[str]
    capture_before: NotRequired[str]


class Refund(TypedDict):
    """One refund."""

    id: str
    object: Literal["refund"]
    mode: Mode
    payment_id: str
    merchant_refund_no: str
    amount: int
    currency: str
    fee_returned: int
    kind: Literal["merchant", "late"]
    reason: str
    status: RefundStatus
    version: int
    created_at: str
    code: NotRequired[str]
    ended_at: NotRequired[str]
    staff_id: NotRequired[str]


class ReceiptEntry(TypedDict):
    """The part of a recorded transfer that every receipt shows."""

    book: int
    seq: int
    id: str
    amount: int
    currency: str
    kind: str
    flags: int
    code: int
    reference: str
    pending_id: str | None
    biz_date: str
    value_date: str
    at: str


class ReceiptSide(TypedDict):
    """One side of a transfer: open when it is yours, else only ``sealed``."""

    sealed: NotRequired[str]
    salt: NotRequired[str]
    account: NotRequired[int]
    owner: NotRequired[str | None]
    kind: NotRequired[str]
    previous: NotRequired[str | None]
    after: NotRequired[int]


class ReceiptTransfer(TypedDict):
    """A transfer and the way from it to the signed root."""

    entry: ReceiptEntry
    code: str
    code_proof: list[str]
    debit: ReceiptSide
    credit: ReceiptSide
    proof: list[str]


class Receipt(TypedDict):
    """The postings of a payment, and the proof that a signed checkpoint holds them.

    Keep it whole: the program at ``/ledger/verifier`` takes it as it came.
    """

    object: Literal["tongbao.receipt/1"]
    checkpoint: str
    transfers: list[ReceiptTransfer]


class Event(TypedDict):
    """What happened: ``data["object"]`` is the resource as it was then. Webhooks carry the same."""

    id: str
    type: str
    created_at: str
    mode: Mode
    data: dict[str, Any]


class WebhookEndpoint(TypedDict):
    """An address the platform tells of events. ``secret`` is in the answer that made it only."""

    id: str
    mode: Mode
    url: str
    description: str
    event_types: list[str]
    state: Literal["enabled", "disabled", "deleted"]
    disabled_because: Literal["merchant", "gone", "failing"] | None
    public_keys: list[str]
    secret: str | None
    created_at: str
    api_version: str | None


class WebhookDelivery(TypedDict):
    """One event on its way to one endpoint."""

    id: str
    endpoint_id: str
    event_id: str
    event_type: str
    resource_id: str
    state: DeliveryStatus
    attempts: int
    last_status: int | None
    next_at: str | None
    created_at: str
    closed_at: str | None


class DeliveryAttempt(TypedDict):
    """What one try of a delivery met."""

    number: int
    at: str
    outcome: Literal[
        "delivered", "rejected", "redirected", "throttled", "gone", "no_answer", "not_sent"
    ]
    status: int | None
    duration_ms: int
    reply: str


class ApiKey(TypedDict):
    """An API key. ``secret`` is in the first answer to its making only."""

    id: str
    object: Literal["api_key"]
    mode: Mode
    name: str
    scopes: list[str]
    secret_tail: str
    algorithm: Literal["hmac-sha256", "ed25519", "ecdsa-p256-sha256", "rsa-pss-sha512", "sm2-sm3"]
    api_version: str
    is_good: bool
    created_at: str
    expires_at: NotRequired[str]
    revoked_at: NotRequired[str]
    last_used_at: NotRequired[str]
    replaced_by: NotRequired[str]
    secret: NotRequired[str]


class BankAccount(TypedDict):
    """Where settlements are paid to."""

    holder: str
    number_masked: str


class Merchant(TypedDict):
    """The merchant as it sees itself, in the mode of its key."""

    id: str
    object: Literal["merchant"]
    name: str
    mode: Mode
    status: Literal["active", "held", "stopped", "suspended", "leaving", "gone"]
    late_success: Literal["refund", "accept_if_open"]
    settlement_delay_days: int
    channels: list[str]
    created_at: str
    bank_account: NotRequired[BankAccount]
    price_plan: NotRequired[PricePlan]


class Wallet(TypedDict):
    """A wallet; ``available`` is the balance less what is held."""

    id: str
    object: Literal["wallet"]
    mode: Mode
    holder_name: str
    currency: str
    status: Literal["active", "frozen"]
    balance: int
    available: int
    daily_limit: int
    created_at: str


class PaymentCode(TypedDict):
    """A one-time payment code of a wallet; it is not shown again."""

    object: Literal["payment_code"]
    wallet_id: str
    code: str
    expires_at: str


class OfflineKey(TypedDict):
    """A phone's key for codes made without network; `OfflineWallet` makes them."""

    id: str
    object: Literal["offline_key"]
    wallet_id: str
    device_name: str
    status: str
    alias: str
    algorithm: Literal["HMAC-SM3"]
    prefix: str
    digits: int
    step_s: int
    limit_each: int
    limit_per_day: int
    created_at: str
    expires_at: str
    server_time: str
    secret: NotRequired[str]  # hex, in the first answer only


class TopUp(TypedDict):
    """Sandbox money put into a wallet."""

    id: str
    object: Literal["wallet_top_up"]
    wallet_id: str
    amount: int
    currency: str
    created_at: str


class ClockReading(TypedDict):
    """Business time as the platform lives it."""

    now: str
    business_date: str


class CurrencyBalance(TypedDict):
    """What is owed in one currency.

    ``available`` may be settled or refunded; ``held`` is promised to open refunds; ``settling`` is
    settled and on its way to the bank; ``reserved`` is kept back for a time.
    """

    currency: str
    available: int
    held: int
    settling: int
    reserved: int


class Balance(TypedDict):
    """What the merchant is owed."""

    object: Literal["balance"]
    mode: Mode
    balances: list[CurrencyBalance]


class Settlement(TypedDict):
    """What was settled for one business day.

    ``due`` is what was carried over (``opening``) and every movement since; of it ``reserved`` is
    kept back until ``reserve_until``, ``quick_fee`` is the price of D+0, ``payable`` is paid out,
    and ``carried`` opens the next settlement.
    """

    id: str
    object: Literal["settlement"]
    mode: Mode
    day: str
    currency: str
    kind: Literal["day", "quick"]
    opening: int
    gross: int
    fees: int
    refunds: int
    fees_returned: int
    other: int
    due: int
    reserved: int
    quick_fee: int
    payable: int
    carried: int
    line_count: int
    status: Literal["drawn", "closed", "paid", "unpaid", "returned"]
    closed_at: NotRequired[str]
    reserve_until: NotRequired[str]
    payout_id: NotRequired[str]


class SettlementLine(TypedDict):
    """One movement of a settlement: what it was, whose, and what it changed."""

    seq: int
    code: str
    column: str
    reference: str
    amount: int
    day: str


class Payout(TypedDict):
    """A settlement on its way to the merchant's bank account."""

    id: str
    object: Literal["payout"]
    mode: Mode
    settlement_id: str
    amount: int
    currency: str
    status: PayoutStatus
    version: int
    created_at: str
    bank_account: NotRequired[str]
    bank_reference: NotRequired[str]
    failure_code: NotRequired[str]
    ended_at: NotRequired[str]
    returned_at: NotRequired[str]
