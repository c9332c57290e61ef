# Made by `make docs` from the API's own description; edit that.
"""Everything that answers are made of, as TypedDicts: plain dicts with checked keys.

Amounts are whole minor units (1999 is 19.99 yuan), moments are RFC 3339 texts. Fields are only ever
added, so a program reads what it knows and ignores the rest.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class ActivationCode(TypedDict):
    """A code to type into the terminal, once; shown here only."""

    object: Literal["terminal_activation_code"]
    terminal_id: str
    serial: str
    code: str
    expires_at: str


class Agreement(TypedDict):
    """An agreement as the API and the webhooks show it."""

    id: str
    object: Literal["agreement"]
    mode: Literal["live", "sandbox"]
    merchant_agreement_no: str
    channel: str
    plan: str
    display_name: str
    currency: str
    status: Literal["active", "created", "ended", "ending", "failed", "pending", "unknown"]
    version: int
    amount_used: int
    amount_used_total: int
    payments_used: int
    created_at: str
    expires_at: str
    limit_each: NotRequired[int]
    period: NotRequired[Literal["day", "month", "week", "year"]]
    limit_per_period: NotRequired[int]
    limit_total: NotRequired[int]
    payments_max: NotRequired[int]
    next_action: NotRequired[ShowQr | Redirect | SubmitForm | OpenApp]
    code: NotRequired[str]
    signed_at: NotRequired[str]
    ends_at: NotRequired[str]
    ended_at: NotRequired[str]


class Announcement(TypedDict):
    """What became of telling a customer.

    ``unknown``: they may have been told.
    """

    object: Literal["agreement_announcement"]
    agreement_id: str
    amount: int
    currency: str
    status: Literal["announced", "refused", "unknown"]
    code: NotRequired[str]


class ApiKey(TypedDict):
    """An API key as its merchant sees it."""

    id: str
    object: Literal["api_key"]
    mode: Literal["live", "sandbox"]
    name: str
    scopes: list[str]
    secret_tail: str
    algorithm: Literal["ecdsa-p256-sha256", "ed25519", "hmac-sha256", "rsa-pss-sha512", "sm2-sm3"]
    api_version: str
    is_good: bool
    created_at: str
    expires_at: NotRequired[str]
    revoked_at: NotRequired[str]
    last_used_at: NotRequired[str]
    replaced_by: NotRequired[str]
    secret: NotRequired[str]


class Application(TypedDict):
    """An application as its applicant sees it; what identifies persons is masked."""

    id: str
    object: Literal["application"]
    application_no: str
    mode: Literal["live", "sandbox"]
    status: Literal["declined", "draft", "forwarded", "opened", "submitted", "withdrawn"]
    firm: Firm
    trade: Trade
    personal: Masked
    channels: list[ChannelAsked]
    prices: list[PriceLine]
    settlement_delay_days: int
    documents: list[Document]
    created_at: str
    note: NotRequired[str]
    merchant_id: NotRequired[str]
    submitted_at: NotRequired[str]
    ended_at: NotRequired[str]


class Balance(TypedDict):
    """What the merchant is owed, by currency."""

    object: Literal["balance"]
    mode: Literal["live", "sandbox"]
    balances: list[CurrencyBalance]


class BankAccount(TypedDict):
    """Where settlements are paid to."""

    holder: str
    number_masked: str


class CardBalance(TypedDict):
    """One balance: ``account`` is the issuer's kind of account (30 is credit)."""

    account: str
    kind: Literal["available", "ledger", "other"]
    amount: int
    currency: str


class CardBalances(TypedDict):
    """What a card has."""

    object: Literal["card_balances"]
    balances: list[CardBalance]


class CardToken(TypedDict):
    """A token as the API shows it.

    Its number pays nowhere but in its domain.
    """

    id: str
    object: Literal["card_token"]
    card_id: str
    number: str
    requestor_id: str
    kind: Literal["card_on_file", "device"]
    status: Literal["active", "deleted", "replaced", "requested", "suspended"]
    assurance_method: str
    payment_account_reference: str
    bin: str
    last4: str
    controls: TokenControls
    uses: int
    amount_used: int
    replaced_by: str | None
    expires_at: str
    created_at: str


class CardTokenKey(TypedDict):
    """A limited-use key.

    ``secret`` is hex, and shown once. A cryptogram is the first 16 bytes, in hex, of HMAC-
    SHA-256 under the secret over the text ``tongbao cryptogram 1`` with a zero byte, and then
    the token's number, the counter, the amount and the currency, each as text after its length
    in four bytes, the highest first.
    """

    object: Literal["card_token_key"]
    token_id: str
    number: int
    algorithm: Literal["HMAC-SHA-256"]
    uses_max: int
    uses: int
    refill_at: int
    expires_at: str
    secret: NotRequired[str]


class ChannelAsked(TypedDict):
    """A channel to be opened, with what only this channel wants to know."""

    channel: str
    terms: NotRequired[dict[str, str]]


class Checkout(TypedDict):
    """A checkout as the API shows it.

    ``payment_id`` is its latest try.
    """

    id: str
    object: Literal["checkout"]
    mode: Literal["live", "sandbox"]
    url: str
    merchant_order_no: str
    amount: int
    currency: str
    subject: str
    status: Literal["closed", "closing", "open", "paid"]
    created_at: str
    expires_at: str
    metadata: dict[str, str]
    channels: NotRequired[list[str]]
    return_url: NotRequired[str]
    payment_id: NotRequired[str]
    plate_id: NotRequired[str]
    terminal_id: NotRequired[str]
    closed_at: NotRequired[str]


class ClockReading(TypedDict):
    """Business time as the platform lives it."""

    now: str
    business_date: str


class CombinedPart(TypedDict):
    """One part of a combined payment: its payment, as far as who combined it is told."""

    payment_id: str
    merchant_id: str
    merchant_order_no: str
    amount: int
    subject: str
    status: Literal[
        "authorised",
        "capturing",
        "closed",
        "created",
        "failed",
        "pending",
        "succeeded",
        "unknown",
        "voided",
        "voiding",
    ]


class CombinedPayment(TypedDict):
    """A combined payment as the API and the webhooks show it."""

    id: str
    object: Literal["combined_payment"]
    mode: Literal["live", "sandbox"]
    merchant_combined_no: str
    amount: int
    currency: str
    method: MethodUsed
    status: Literal["closed", "created", "mixed", "pending", "succeeded"]
    version: int
    parts: list[CombinedPart]
    created_at: str
    expires_at: str
    next_action: NotRequired[ShowQr | Redirect | SubmitForm | OpenApp]
    code: NotRequired[str]
    ended_at: NotRequired[str]
    hosted_url: NotRequired[str]
    customer_chooses: NotRequired[bool]


class CombiningConsent(TypedDict):
    """Whom a merchant lets ask for its orders together with theirs."""

    merchant_id: str
    given_at: str


class Commission(TypedDict):
    """What the agent got of one merchant's fees in one run, in minor units.

    ``posted`` went to its balance; what was less than nothing is in ``carried_out``, for the
    next.
    """

    id: str
    object: Literal["commission"]
    mode: Literal["live", "sandbox"]
    currency: str
    earned: int
    carried_in: int
    posted: int
    carried_out: int
    created_at: str


class CommissionLine(TypedDict):
    """One fee: the agent's share of it in millionths, what of that it passed on, what it got."""

    fee: int
    share_ppm: int
    passed_ppm: int
    amount: int
    at: str


class Complaint(TypedDict):
    """A complaint as the API and the webhooks show it."""

    id: str
    object: Literal["complaint"]
    mode: Literal["live", "sandbox"]
    payment_id: str
    channel: str
    channel_ref: str
    kind: str
    detail: str
    amount: int
    currency: str
    status: Literal["pending", "processed", "processing"]
    times: int
    has_news: bool
    version: int
    complained_at: str
    answer_by: NotRequired[str]
    ended_at: NotRequired[str]


class ComplaintImage(TypedDict):
    """A picture that a customer sent along; ``status`` kept: its content can be fetched."""

    id: str
    object: Literal["complaint_image"]
    complaint_id: str
    status: Literal["gone", "kept", "refused", "wanted"]
    seen_at: str
    media_type: NotRequired[str]
    size: NotRequired[int]
    sha256: NotRequired[str]


class ComplaintImageContent(TypedDict):
    """A picture itself; ``content`` is base64."""

    object: Literal["complaint_image_content"]
    id: str
    media_type: str
    content: str


class ComplaintMessage(TypedDict):
    """One thing that was said or done about a complaint."""

    who: Literal["channel", "customer", "merchant"]
    kind: str
    text: str
    image_count: int
    at: str


class ComplaintReply(TypedDict):
    """Something said to a customer, as the API shows it."""

    id: str
    object: Literal["complaint_reply"]
    complaint_id: str
    kind: Literal["complete", "reply"]
    text: str
    status: Literal["refused", "requested", "sent", "unknown"]
    created_at: str
    code: NotRequired[str]


class CurrencyBalance(TypedDict):
    """What a merchant is owed in one currency.

    ``available`` may be settled or refunded; ``held`` is promised to open refunds; ``settling``
    is settled and on its way to the bank; ``reserved`` is kept back for a time.
    """

    currency: str
    available: int
    held: int
    settling: int
    reserved: int


class DeliveryAttempt(TypedDict):
    """What one try of a delivery met."""

    number: int
    at: str
    outcome: Literal[
        "delivered", "gone", "no_answer", "not_sent", "redirected", "rejected", "throttled"
    ]
    status: int | None
    duration_ms: int
    reply: str


class DiningTable(TypedDict):
    """A table as its merchant sees it; ``url`` is what its printed code says."""

    id: str
    object: Literal["dining_table"]
    mode: Literal["live", "sandbox"]
    name: str
    status: Literal["active", "revoked"]
    url: str
    image_url: str
    created_at: str


class Dish(TypedDict):
    """A line of a kitchen ticket; with ``order_id`` it is on a bill."""

    id: str
    object: Literal["dish"]
    tab_id: str
    code: str
    name: str
    price: int
    currency: str
    quantity: int
    wishes: str
    guest_id: str
    guest_name: str
    status: Literal["cancelled", "cooking", "ordered", "ready", "served"]
    is_paid: bool
    created_at: str
    order_id: NotRequired[str]


class Dispute(TypedDict):
    """A dispute as the API and the webhooks show it."""

    id: str
    object: Literal["dispute"]
    mode: Literal["live", "sandbox"]
    payment_id: str
    scheme: str
    scheme_ref: str
    reason_code: str
    reason: str
    status: Literal[
        "accepted",
        "arbitration",
        "chargeback",
        "closed",
        "lost",
        "pre_arbitration",
        "represented",
        "retrieval",
        "won",
    ]
    amount: int
    currency: str
    amount_held: int
    fee: int
    version: int
    opened_at: str
    answer_by: NotRequired[str]
    answered_at: NotRequired[str]
    ended_at: NotRequired[str]


class Document(TypedDict):
    """A document as its applicant sees it: what it is, and its digest, never its bytes."""

    id: str
    kind: Literal[
        "bank_permit",
        "business_license",
        "legal_id_back",
        "legal_id_front",
        "qualification",
        "store_front",
        "store_inside",
    ]
    media_type: str
    size: int
    sha256: str
    added_at: str


class Event(TypedDict):
    """An event as merchants see it, in the list of events and in webhooks alike."""

    id: str
    type: str
    created_at: str
    mode: Literal["live", "sandbox"]
    data: dict[str, Any]


class EvidenceFile(TypedDict):
    """A file as the API shows it; the content is not given back."""

    id: str
    object: Literal["evidence_file"]
    name: str
    media_type: str
    size: int
    sha256: str


class Failure(TypedDict):
    """Why a payment failed, for the program and for the customer in both languages."""

    code: str
    message: str
    message_zh: str


class Firm(TypedDict):
    """Who applies, as the business licence has it.

    Without ``license_ends`` it is for good.
    """

    kind: Literal["enterprise", "individual_business"]
    legal_name: str
    short_name: str
    credit_code: str
    address: str
    license_begins: str
    license_ends: NotRequired[str | None]


class FirstKey(TypedDict):
    """The opened merchant's first key; ``secret`` is in the first answer only."""

    id: str
    object: Literal["first_key"]
    merchant_id: str
    key_id: str
    scopes: list[str]
    secret: NotRequired[str]


class Grab(TypedDict):
    """A part that somebody took."""

    id: str
    object: Literal["red_packet_grab"]
    red_packet_id: str
    wallet_id: str
    part: int
    amount: int
    currency: str
    grabbed_at: str


class GrabAnswer(TypedDict):
    """What became of a grab: the wallet's part, or that there is nothing to take any more."""

    object: Literal["red_packet_grab_answer"]
    outcome: Literal["empty", "grabbed"]
    grab: NotRequired[Grab]


class Limits(TypedDict):
    """What a terminal may take, in minor units; what is left out is unlimited."""

    each: NotRequired[int | None]
    count: NotRequired[int | None]
    amount: NotRequired[int | None]


class LoggedRequest(TypedDict):
    """A request of the merchant's own: of a sandbox key also what it said, masked."""

    id: str
    object: Literal["request"]
    mode: Literal["live", "sandbox"]
    key_id: str
    created_at: str
    method: str
    route: str
    status: int
    duration_us: int
    is_replayable: bool
    code: NotRequired[str]
    target: NotRequired[str]
    body: NotRequired[Any]
    answer: NotRequired[Any]


class Masked(TypedDict):
    """The same as people may see it."""

    legal_name: str
    id_number: str
    contact_name: str
    phone: str
    email: str
    holder: str
    number: str


class Merchant(TypedDict):
    """A merchant as it sees itself, in the mode of its key."""

    id: str
    object: Literal["merchant"]
    name: str
    mode: Literal["live", "sandbox"]
    status: Literal["active", "gone", "held", "leaving", "stopped", "suspended"]
    late_success: Literal["accept_if_open", "refund"]
    settlement_delay_days: int
    channels: list[str]
    created_at: str
    bank_account: NotRequired[BankAccount]
    price_plan: NotRequired[PricePlan]


class MerchantTerms(TypedDict):
    """The terms in force; ``sha256`` is of ``content`` in UTF-8."""

    object: Literal["merchant_terms"]
    version: int
    title: str
    sha256: str
    content: str
    in_force_from: str


class MethodUsed(TypedDict):
    """How a payment is made, as the API shows it."""

    channel: str
    mode: Literal["agreement", "app", "card", "h5", "in_app", "payment_code", "qr", "web"]
    agreement_id: NotRequired[str]
    combined_payment_id: NotRequired[str]
    parking_visit_id: NotRequired[str]


class OfflineKey(TypedDict):
    """A phone's key for codes without network.

    ``secret`` is hex, and shown once. The code of a step is ``prefix``, ``alias`` and a one-
    time number of ``digits`` digits; a step is ``step_s`` seconds of real time. ``server_time``
    lets the phone set its watch.
    """

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
    secret: NotRequired[str]


class OpenApp(TypedDict):
    """Hand these to the channel's own code, in its page or in the merchant's app."""

    type: Literal["open_app"]
    parameters: dict[str, str]


class Order(TypedDict):
    """An order as the API and the webhooks show it; ``url`` is where the customer pays it."""

    id: str
    object: Literal["order"]
    mode: Literal["live", "sandbox"]
    merchant_order_no: str
    scene: Literal["counter", "shop", "table"]
    status: Literal["cancelled", "fulfilled", "paid", "placed", "refunded"]
    amount: int
    currency: str
    amount_refunded: int
    subject: str
    created_at: str
    expires_at: str
    metadata: dict[str, str]
    lines: NotRequired[list[OrderLine]]
    payment_id: NotRequired[str]
    tab_id: NotRequired[str]
    url: NotRequired[str]
    paid_at: NotRequired[str]
    ended_at: NotRequired[str]


class OrderExport(TypedDict):
    """Lines of CSV with a heading (RFC 4180), and the cursor of the next page, if there is
    one.

    What a spreadsheet would run as a formula has an apostrophe before it.
    """

    object: Literal["order_export"]
    csv: str
    orders: int
    next_cursor: str | None


class OrderLine(TypedDict):
    """A line of an order as the API shows it."""

    number: int
    code: str
    name: str
    price: int
    quantity: int
    amount: int
    refunded_quantity: int


class OrderRefund(TypedDict):
    """What is given back of an order, as the API and the webhooks show it."""

    id: str
    object: Literal["order_refund"]
    mode: Literal["live", "sandbox"]
    order_id: str
    amount: int
    lines: list[RefundedLine]
    restock: bool
    reason: str
    status: Literal["failed", "requested", "succeeded"]
    created_at: str
    code: NotRequired[str]
    refund_id: NotRequired[str]
    ended_at: NotRequired[str]


class Paper(TypedDict):
    """A paper as the API gives it; ``content`` is base64."""

    object: Literal["paper"]
    name: str
    media_type: str
    sha256: str
    content: str


class ParkingPlate(TypedDict):
    """Whether a plate's fees can be taken without its driver's doing; the plate is not
    repeated.
    """

    object: Literal["parking_plate"]
    channel: str
    status: Literal["blocked", "open"]
    code: NotRequired[str]


class ParkingVisit(TypedDict):
    """A visit as the API and the webhooks show it; the plate is shown to nobody again."""

    id: str
    object: Literal["parking_visit"]
    mode: Literal["live", "sandbox"]
    merchant_visit_no: str
    channel: str
    place: str
    lot: str
    free_s: int
    status: Literal["blocked", "created", "left", "open", "unknown"]
    version: int
    entered_at: str
    created_at: str
    left_at: NotRequired[str]
    code: NotRequired[str]
    payment_id: NotRequired[str]


class Payment(TypedDict):
    """A payment as the API and the webhooks show it."""

    id: str
    object: Literal["payment"]
    mode: Literal["live", "sandbox"]
    merchant_order_no: str
    amount: int
    currency: str
    subject: str
    method: MethodUsed
    status: Literal[
        "authorised",
        "capturing",
        "closed",
        "created",
        "failed",
        "pending",
        "succeeded",
        "unknown",
        "voided",
        "voiding",
    ]
    version: int
    amount_captured: int
    amount_refunded: int
    fee: int
    fee_returned: int
    created_at: str
    expires_at: str
    metadata: dict[str, str]
    next_action: NotRequired[ShowQr | Redirect | SubmitForm | OpenApp]
    failure: NotRequired[Failure]
    close_reason: NotRequired[Literal["expired", "merchant", "not_paid"]]
    succeeded_at: NotRequired[str]
    ended_at: NotRequired[str]
    capture: NotRequired[Literal["automatic", "manual"]]
    amount_authorised: NotRequired[int]
    amount_capturing: NotRequired[int]
    amount_disputed: NotRequired[int]
    authorised_at: NotRequired[str]
    capture_before: NotRequired[str]


class PaymentCode(TypedDict):
    """A payment code, for the customer's screen; it is not shown again."""

    object: Literal["payment_code"]
    wallet_id: str
    code: str
    expires_at: str


class PaymentShares(TypedDict):
    """Everything shared of a payment, and what came back."""

    amount_shared: int
    splits: list[Split]
    returns: list[SplitReturn]


class Payout(TypedDict):
    """A payout as the API and the webhooks show it."""

    id: str
    object: Literal["payout"]
    mode: Literal["live", "sandbox"]
    settlement_id: str
    amount: int
    currency: str
    status: Literal["failed", "pending", "requested", "returned", "succeeded", "unknown"]
    version: int
    created_at: str
    bank_account: NotRequired[str]
    bank_reference: NotRequired[str]
    failure_code: NotRequired[str]
    ended_at: NotRequired[str]
    returned_at: NotRequired[str]


class PayoutReceipt(TypedDict):
    """A payout's receipt: its facts, their digest, and the same on paper."""

    object: Literal["payout_receipt"]
    facts: PayoutReceiptFacts
    digest: str
    paper: Paper


class PayoutReceiptFacts(TypedDict):
    """The facts of an electronic receipt (电子回单), in the order they are digested."""

    number: str
    settlement: str
    merchant: str
    holder: str
    account: str
    amount: int
    currency: str
    bank_reference: str
    paid_at: str
    ledger_book: int
    ledger_transfer: str
    ledger_seq: int


class Place(TypedDict):
    """Where a store is; ``area_code`` is the six digits of GB/T 2260."""

    area_code: str
    address: str
    point: NotRequired[Point | None]


class Plate(TypedDict):
    """A plate as the API shows it.

    ``url`` is what its code says; the image is that code, drawn.
    """

    id: str
    object: Literal["plate"]
    mode: Literal["live", "sandbox"]
    name: str
    subject: str
    currency: str
    status: Literal["active", "revoked"]
    url: str
    image_url: str
    created_at: str
    amount: NotRequired[int]
    emv_text: NotRequired[str]
    revoked_at: NotRequired[str]


class Point(TypedDict):
    """Degrees as text, with at most six decimals, in the datum maps of China use (GCJ-02)."""

    latitude: str
    longitude: str


class PriceLine(TypedDict):
    """What a way of paying costs the merchant; ``fixed``, ``fee_min``, ``fee_max`` in minor
    units.

    ``refund_fee``: whether a refund gives its part of the fee back; ``plan`` leaves it to the
    plan.
    """

    channel: str
    pay_mode: str
    rate_ppm: int
    fixed: NotRequired[int]
    fee_min: NotRequired[int]
    fee_max: NotRequired[int | None]
    card: NotRequired[Literal["any", "credit", "debit", "foreign"]]
    steps: NotRequired[list[PriceStep]]
    promotions: NotRequired[list[PricePromotion]]
    refund_fee: NotRequired[Literal["kept", "plan", "returned"]]


class PricePlan(TypedDict):
    """What payments cost the merchant from a moment on, until the next version's."""

    id: str
    version: int
    valid_from: str
    currency: str
    refund_returns_fee: bool
    lines: list[PriceLine]


class PricePlans(TypedDict):
    """Every version of a merchant's prices in one mode, in the order they begin."""

    items: list[PricePlan]


class PricePromotion(TypedDict):
    """The charge on business days in ``[from_day, until_day)``, in the place of any other."""

    rate_ppm: int
    fixed: NotRequired[int]
    fee_min: NotRequired[int]
    fee_max: NotRequired[int | None]
    from_day: str
    until_day: str


class PriceQuote(TypedDict):
    """What one payment would cost now, and which charge of the plan says so."""

    object: Literal["price_quote"]
    amount: int
    currency: str
    channel: str
    pay_mode: str
    fee: int
    refund_returns_fee: bool
    plan_version: int
    basis: str
    day: str
    month_volume: NotRequired[int]


class PriceStep(TypedDict):
    """The charge from an amount of the payment, and a volume of the month before it, on."""

    rate_ppm: int
    fixed: NotRequired[int]
    fee_min: NotRequired[int]
    fee_max: NotRequired[int | None]
    amount_from: NotRequired[int]
    volume_from: NotRequired[int]


class Product(TypedDict):
    """A product as its merchant sees it."""

    id: str
    object: Literal["product"]
    mode: Literal["live", "sandbox"]
    name: str
    category: str
    description: str
    on_shelf: bool
    skus: list[Sku]
    created_at: str
    image_key: NotRequired[str]


class Receipt(TypedDict):
    """Transfers, and the proof that a signed checkpoint holds them."""

    object: Literal["tongbao.receipt/1"]
    checkpoint: str
    transfers: list[ReceiptTransfer]


class ReceiptEntry(TypedDict):
    """The part of a recorded transfer that every receipt shows.

    ``amount`` is minor units.
    """

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
    """One side of a transfer: open for whom it belongs to, and for others only ``sealed``.

    What is sealed cannot be changed later, nor looked into.
    """

    sealed: NotRequired[str]
    salt: NotRequired[str]
    account: NotRequired[int]
    owner: NotRequired[str | None]
    kind: NotRequired[str]
    previous: NotRequired[str | None]
    after: NotRequired[int]


class ReceiptTransfer(TypedDict):
    """A transfer and the way from it to the root of the checkpoint."""

    entry: ReceiptEntry
    code: str
    code_proof: list[str]
    debit: ReceiptSide
    credit: ReceiptSide
    proof: list[str]


class Receiver(TypedDict):
    """Somebody who may get shares, as the merchant sees them."""

    id: str
    object: Literal["split_receiver"]
    mode: Literal["live", "sandbox"]
    kind: Literal["channel", "merchant", "wallet"]
    account: str
    relation: str
    status: Literal["active", "binding", "failed", "unbinding", "unbound"]
    created_at: str
    channel: NotRequired[str]
    code: NotRequired[str]


class RedPacket(TypedDict):
    """A red packet as the API and the webhooks show it."""

    id: str
    object: Literal["red_packet"]
    mode: Literal["live", "sandbox"]
    wallet_id: str
    kind: Literal["equal", "lucky"]
    amount: int
    currency: str
    parts: int
    greeting: str
    status: Literal["emptied", "open", "returned"]
    parts_taken: int
    amount_taken: int
    amount_returned: int
    created_at: str
    expires_at: str
    ended_at: NotRequired[str]


class Redirect(TypedDict):
    """Send the customer's browser there."""

    type: Literal["redirect"]
    url: str


class Refund(TypedDict):
    """A refund as the API and the webhooks show it; ``staff_id``: who gave it back at a till."""

    id: str
    object: Literal["refund"]
    mode: Literal["live", "sandbox"]
    payment_id: str
    merchant_refund_no: str
    amount: int
    currency: str
    fee_returned: int
    kind: Literal["late", "merchant"]
    reason: str
    status: Literal["failed", "pending", "requested", "succeeded", "unknown"]
    version: int
    created_at: str
    code: NotRequired[str]
    ended_at: NotRequired[str]
    staff_id: NotRequired[str]


class RefundRedirection(TypedDict):
    """Where a stuck refund is sent, as the API shows it; whose card it is nobody is shown."""

    refund_id: str
    object: Literal["refund_redirection"]
    target: Literal["customer_card", "merchant_account"]
    status: Literal["accepted", "refused", "requested"]
    asked_at: str
    code: NotRequired[str]
    ended_at: NotRequired[str]


class RefundedLine(TypedDict):
    """So many pieces of a line."""

    number: int
    quantity: int


class Registration(TypedDict):
    """How an application stands at one channel.

    The merchant is to go to ``action_url``; ``reasons`` say what the channel wants corrected.
    """

    id: str
    object: Literal["registration"]
    application_id: str
    channel: str
    status: Literal[
        "asked",
        "auditing",
        "canceled",
        "finished",
        "manual",
        "opening",
        "rejected",
        "signing",
        "verifying",
        "waiting",
    ]
    created_at: str
    reasons: list[RejectedField]
    sub_merchant: NotRequired[str]
    action_url: NotRequired[str]
    ended_at: NotRequired[str]


class Registrations(TypedDict):
    """An application's registrations, one for each channel it asked for."""

    items: list[Registration]


class RejectedField(TypedDict):
    """One thing the channel wants corrected, in its words."""

    field: str
    reason: str


class RequestReplay(TypedDict):
    """What came of sending a request again."""

    object: Literal["request_replay"]
    replayed: str
    request_id: str
    status: int
    answer: Any


class Review(TypedDict):
    """What a customer thinks of a paid order."""

    object: Literal["order_review"]
    order_id: str
    stars: int
    words: str
    created_at: str


class RowFault(TypedDict):
    """What is wrong with one row: the line of the file, the column, and why."""

    line: int
    column: str
    reason: str


class Settlement(TypedDict):
    """A settlement as the API and the webhooks show it."""

    id: str
    object: Literal["settlement"]
    mode: Literal["live", "sandbox"]
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
    status: Literal["closed", "drawn", "paid", "returned", "unpaid"]
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


class Share(TypedDict):
    """One receiver's share as the API and the webhooks show it."""

    id: str
    receiver_id: str
    amount: int
    status: Literal["cancelled", "failed", "held", "pending", "succeeded"]
    amount_returned: int
    code: NotRequired[str]


class ShowQr(TypedDict):
    """Draw it as a QR code for the customer to scan."""

    type: Literal["show_qr"]
    code_url: str


class Signature(TypedDict):
    """One version that was agreed to."""

    version: int
    sha256: str
    signer: str
    signed_at: str


class Sku(TypedDict):
    """A variant with its stock; without counting, all of that is zero."""

    id: str
    object: Literal["sku"]
    code: str
    name: str
    price: int
    currency: str
    is_counted: bool
    available: int
    reserved: int
    sold: int


class Split(TypedDict):
    """A split as the API and the webhooks show it."""

    id: str
    object: Literal["split"]
    mode: Literal["live", "sandbox"]
    payment_id: str
    merchant_split_no: str
    kind: Literal["finish", "shares"]
    side: Literal["book", "channel"]
    amount: int
    currency: str
    status: Literal["cancelled", "ended", "held", "pending", "requested", "unknown"]
    releases: Literal["at", "later", "now"]
    shares: list[Share]
    version: int
    created_at: str
    release_at: NotRequired[str]
    code: NotRequired[str]
    ended_at: NotRequired[str]


class SplitReturn(TypedDict):
    """A share on its way back, or come back."""

    id: str
    object: Literal["split_return"]
    mode: Literal["live", "sandbox"]
    payment_id: str
    split_id: str
    share_id: str
    merchant_return_no: str
    amount: int
    status: Literal["failed", "pending", "requested", "succeeded", "unknown"]
    version: int
    created_at: str
    refund_id: NotRequired[str]
    code: NotRequired[str]
    ended_at: NotRequired[str]


class Staff(TypedDict):
    """A person as the merchant sees them; ``may`` is what the role includes."""

    id: str
    object: Literal["staff"]
    mode: Literal["live", "sandbox"]
    role: Literal["accountant", "cashier", "manager", "owner"]
    may: list[str]
    name: str
    phone: str
    every_store: bool
    store_ids: list[str]
    status: Literal["active", "left", "suspended"]
    created_at: str
    left_at: NotRequired[str]


class StaffAct(TypedDict):
    """What a person did at a till; ``object_id`` is the payment's, or the refund's."""

    object: Literal["staff_act"]
    staff_id: str
    act: Literal[
        "payments.call_off",
        "payments.capture",
        "payments.look",
        "payments.take",
        "payments.void",
        "refunds.look",
        "refunds.make",
    ]
    object_id: str
    at: str


class StaffPinCode(TypedDict):
    """A code with which a person chooses a PIN at a terminal, once; shown here only."""

    object: Literal["staff_pin_code"]
    staff_id: str
    code: str
    expires_at: str


class Store(TypedDict):
    """A store as its merchant sees it."""

    id: str
    object: Literal["store"]
    mode: Literal["live", "sandbox"]
    store_no: str
    name: str
    place: Place
    status: Literal["closed", "open"]
    created_at: str


class SubmitForm(TypedDict):
    """Let the customer's browser post these fields there."""

    type: Literal["submit_form"]
    url: str
    fields: dict[str, str]


class Tab(TypedDict):
    """A tab with its dishes."""

    id: str
    object: Literal["tab"]
    mode: Literal["live", "sandbox"]
    table_id: str
    status: Literal["closed", "open"]
    opened_at: str
    dishes: NotRequired[list[Dish]]
    closed_at: NotRequired[str]


class TerminalDetails(TypedDict):
    """A terminal as its merchant sees it, in the API and in webhooks."""

    id: str
    object: Literal["terminal"]
    mode: Literal["live", "sandbox"]
    serial: str
    model: str
    name: str
    status: Literal["bound", "retired", "stock", "stolen", "suspended"]
    online: bool
    parameters_version: int
    store_id: NotRequired[str]
    plate_id: NotRequired[str]
    last_seen_at: NotRequired[str]
    firmware: NotRequired[str]
    battery: NotRequired[int]
    signal: NotRequired[int]
    reported_parameters_version: NotRequired[int]


class TerminalLimits(TypedDict):
    """A terminal's limits, the platform's caps over them, and what counts today."""

    object: Literal["terminal_limits"]
    terminal_id: str
    currency: str
    limits: Limits
    caps: Limits
    used_count: int
    used_amount: int


class TerminalParameters(TypedDict):
    """One version of what a terminal is to do."""

    object: Literal["terminal_parameters"]
    terminal_id: str
    version: int
    own: dict[str, Any]
    effective: dict[str, Any]
    reason: str
    made_at: str


class TermsInForce(TypedDict):
    """The terms in force, at most one version of them."""

    items: list[MerchantTerms]


class TokenControls(TypedDict):
    """Where a token is good, as the API shows it; null is no limit."""

    channels: list[str]
    pay_modes: list[str]
    currency: str
    amount_each_max: int | None
    amount_max: int | None
    uses_max: int | None


class TopUp(TypedDict):
    """Money put into a wallet, as the API and the webhooks show it."""

    id: str
    object: Literal["wallet_top_up"]
    wallet_id: str
    amount: int
    currency: str
    created_at: str


class Trade(TypedDict):
    """What is sold and where."""

    mcc: str
    service_phone: str
    store_name: str
    area_code: str
    address: str


class Transfer(TypedDict):
    """One transfer as the API and the webhooks show it."""

    id: str
    object: Literal["transfer"]
    batch_id: str
    line: int
    number: str
    destination: Literal["alipay", "bank", "wallet", "wechat_pay"]
    payee: str
    amount: int
    currency: str
    note: str
    status: Literal[
        "failed", "held", "listed", "pending", "refused", "returned", "succeeded", "unknown"
    ]
    code: NotRequired[str]
    channel_reference: NotRequired[str]
    next_action: NotRequired[dict[str, Any]]
    ended_at: NotRequired[str]


class TransferBatch(TypedDict):
    """A batch as the API shows it; ``progress`` counts its transfers by status."""

    id: str
    object: Literal["transfer_batch"]
    mode: Literal["live", "sandbox"]
    number: str
    currency: str
    count: int
    amount: int
    status: Literal["done", "dropped", "listed", "running"]
    progress: dict[str, int]
    created_at: str
    ended_at: NotRequired[str]


class TransferFileReport(TypedDict):
    """What became of a file: a batch that waits to be let go, or every fault of its rows."""

    object: Literal["transfer_file_report"]
    rows: int
    faults: list[RowFault]
    batch: TransferBatch | None


class UnsplitMoney(TypedDict):
    """How much of a payment may still be shared: as its channel says, and what was shared
    here.
    """

    object: Literal["unsplit_money"]
    payment_id: str
    currency: str
    amount: int
    amount_shared: int


class UserBalance(TypedDict):
    """What a user's wallet holds now, and what of it can go out."""

    object: Literal["wallet_balance"]
    application_id: str
    status: str
    balance: int
    available: int
    currency: str


class VaultCard(TypedDict):
    """A card as the API shows it: never more than the first six and the last four digits."""

    id: str
    object: Literal["vault_card"]
    bin: str
    last4: str
    scheme: str
    payment_account_reference: str
    status: str
    created_at: str


class Wallet(TypedDict):
    """A wallet as the merchant that opened it sees it."""

    id: str
    object: Literal["wallet"]
    mode: Literal["live", "sandbox"]
    holder_name: str
    currency: str
    status: Literal["active", "frozen"]
    balance: int
    available: int
    daily_limit: int
    created_at: str


class WalletAgreement(TypedDict):
    """An agreement as a wallet's owner sees it: who may take how much."""

    id: str
    object: Literal["wallet_agreement"]
    mode: Literal["live", "sandbox"]
    payee: str
    display_name: str
    currency: str
    status: Literal["active", "created", "ended", "ending", "failed", "pending", "unknown"]
    expires_at: str
    signed_by_wallet: NotRequired[bool]
    limit_each: NotRequired[int]
    period: NotRequired[Literal["day", "month", "week", "year"]]
    limit_per_period: NotRequired[int]
    limit_total: NotRequired[int]
    payments_max: NotRequired[int]
    signed_at: NotRequired[str]
    ended_at: NotRequired[str]


class WalletApplication(TypedDict):
    """An application as its merchant sees it: states, and nothing of the person."""

    id: str
    object: Literal["wallet_application"]
    mode: Literal["live", "sandbox"]
    user_id: str
    status: Literal["created", "ended", "expired", "in_progress", "opened", "refused"]
    code: str | None
    grants: list[Literal["balance", "propose", "statement"]]
    each_max: int
    day_max: int
    currency: str
    version: int
    created_at: str
    expires_at: str
    opened_at: str | None
    ended_at: str | None


class WalletLine(TypedDict):
    """One movement; ``change`` is below zero where money went out."""

    kind: str
    change: int
    balance_after: int
    at: str


class WalletLink(TypedDict):
    """A link to open in the user's browser: good once, and shown this once."""

    object: Literal["wallet_link"]
    url: str
    expires_at: str


class WalletProgramme(TypedDict):
    """A programme as its merchant sees it."""

    id: str
    object: Literal["wallet_programme"]
    mode: Literal["live", "sandbox"]
    name: str
    account_class: int
    grants: list[Literal["balance", "propose", "statement"]]
    each_max: int
    day_max: int
    currency: str
    return_urls: list[str]
    status: Literal["active", "pending", "suspended"]
    waiting: WalletProgrammeTerms | None
    created_at: str


class WalletProgrammeTerms(TypedDict):
    """Terms that a merchant has proposed and nobody has agreed to yet."""

    name: str
    account_class: int
    grants: list[Literal["balance", "propose", "statement"]]
    each_max: int
    day_max: int
    return_urls: list[str]


class WalletProposal(TypedDict):
    """A proposal as its merchant sees it."""

    id: str
    object: Literal["wallet_proposal"]
    mode: Literal["live", "sandbox"]
    application_id: str
    merchant_proposal_no: str
    kind: Literal["payment", "top_up", "transfer", "withdrawal"]
    amount: int
    currency: str
    payee: str | None
    purpose: str
    status: Literal["awaiting", "declined", "done", "expired", "failed", "processing"]
    code: str | None
    version: int
    created_at: str
    expires_at: str
    ended_at: str | None


class WalletQr(TypedDict):
    """A merchant's code as a wallet's owner sees it: nothing of it is the merchant's alone."""

    object: Literal["wallet_qr"]
    payment_id: str
    mode: Literal["live", "sandbox"]
    payee: str
    subject: str
    amount: int
    currency: str
    status: Literal["ended", "paid", "payable"]
    expires_at: str
    paid_at: NotRequired[str]
    paid_by_wallet: NotRequired[bool]


class WebhookDelivery(TypedDict):
    """One event on its way to one endpoint."""

    id: str
    endpoint_id: str
    event_id: str
    event_type: str
    resource_id: str
    state: Literal["failed", "pending", "succeeded"]
    attempts: int
    last_status: int | None
    next_at: str | None
    created_at: str
    closed_at: str | None


class WebhookEndpoint(TypedDict):
    """A webhook endpoint; the secret is there only in the answer that made it."""

    id: str
    mode: Literal["live", "sandbox"]
    url: str
    description: str
    event_types: list[str]
    state: Literal["deleted", "disabled", "enabled"]
    disabled_because: Literal["failing", "gone", "merchant"] | None
    public_keys: list[str]
    secret: str | None
    created_at: str
    api_version: str | None
