-- Payments: what the merchant asked (payment), each try on a channel (attempt), money given back
-- (refund), and everything a person needs to believe it: state changes, exchanges, cases.

create table payment (
    book               int         not null,
    id                 uuid        not null,
    merchant_id        uuid        not null,
    mode               text        not null check (mode in ('live', 'sandbox')),
    merchant_order_no  text        not null check (length(merchant_order_no) between 1 and 64),
    request_hash       bytea       not null,
    amount             bigint      not null check (amount > 0),
    currency           text        not null check (length(currency) = 3),
    subject            text        not null,
    channel            text        not null,
    pay_mode           text        not null check (pay_mode in
        ('qr', 'payment_code', 'in_app', 'app', 'h5', 'web', 'agreement', 'card')),
    state              text        not null
        check (state in ('created', 'pending', 'unknown', 'authorised', 'capturing', 'voiding',
                         'succeeded', 'failed', 'closed', 'voided')),
    captured           bigint      not null default 0,
    refunded           bigint      not null default 0,
    fee                bigint      not null check (fee between 0 and amount),
    fee_returned       bigint      not null default 0 check (fee_returned between 0 and fee),
    refund_returns_fee boolean     not null,
    late_success       text        not null check (late_success in ('refund', 'accept_if_open')),
    failure_code       text,
    close_reason       text        check (close_reason in ('merchant', 'expired', 'not_paid')),
    close_requested_at timestamptz,
    metadata           jsonb       not null,
    created_at         timestamptz not null,
    expires_at         timestamptz not null,
    succeeded_at       timestamptz,
    ended_at           timestamptz,
    version            int         not null check (version > 0),
    -- Set where the money is only set aside at first: how long an authorisation may wait to be
    -- captured. What was set aside, and what a capture that is under way asks for, are totals on
    -- this row, so that nobody can capture more, or twice.
    capture_within_s   int         check (capture_within_s > 0),
    authorised         bigint      not null default 0,
    capturing          bigint      not null default 0,
    authorised_at      timestamptz,
    authorised_until   timestamptz,
    primary key (book, id),
    unique (merchant_order_no, merchant_id, mode, book),
    check (captured in (0, amount) or (capture_within_s is not null and captured > 0)),
    check (authorised in (0, amount)),
    check (authorised = 0 or capture_within_s is not null),
    check ((authorised = 0) = (authorised_at is null)),
    check ((authorised_at is null) = (authorised_until is null)),
    check (authorised = 0 or captured + capturing <= authorised),
    check (captured <= amount),
    check (capturing >= 0 and (capturing > 0) = (state = 'capturing')),
    check (state not in ('authorised', 'capturing', 'voiding', 'voided')
           or (authorised > 0 and captured = 0)),
    check (refunded between 0 and captured),
    check (state <> 'succeeded' or (captured > 0 and succeeded_at is not null)),
    check (state not in ('closed', 'voided') or close_reason is not null),
    check ((ended_at is null) = (state in
        ('created', 'pending', 'unknown', 'authorised', 'capturing', 'voiding')))
);
create index payment_of_merchant on payment (merchant_id, mode, id);
create index payment_by_id on payment (id);
create index payment_open on payment (state, id) where state in ('created', 'pending', 'unknown');

-- The state machine, stated a second time where no code can pass it by: every change of a payment
-- writes a row here, in the same commit. (A CHECK and not a foreign key to a table of rules, and
-- none to the payment: docs/adr/0012.)
create table payment_state_change (
    book       int         not null,
    payment_id uuid        not null,
    version    int         not null,
    from_state text        not null,
    to_state   text        not null,
    why        text        not null,
    at         timestamptz not null,
    primary key (book, payment_id, version),
    check (from_state || '>' || to_state = any (array[
        -- another attempt, on another channel, in the place of one that provably was not paid
        'created>created',
        'created>pending', 'created>unknown', 'created>succeeded', 'created>failed',
        'created>closed',
        'pending>unknown', 'pending>succeeded', 'pending>failed', 'pending>closed',
        'unknown>pending', 'unknown>succeeded', 'unknown>failed', 'unknown>closed',
        'closed>succeeded',
        'created>authorised', 'pending>authorised', 'unknown>authorised',
        'authorised>capturing', 'capturing>authorised', 'capturing>succeeded',
        'authorised>voiding', 'voiding>authorised', 'voiding>voided',
        -- money that arrived after the end, and is on its way back: the state stays
        'closed>closed', 'failed>failed',
        'new>created', 'new>succeeded', 'new>failed']))
);

create table attempt (
    book        int         not null,
    id          uuid        not null,
    payment_id  uuid        not null,
    merchant_id uuid        not null,
    mode        text        not null check (mode in ('live', 'sandbox')),
    channel     text        not null,
    account_id  uuid        not null,
    pay_mode    text        not null check (pay_mode in
        ('qr', 'payment_code', 'in_app', 'app', 'h5', 'web', 'agreement', 'card')),
    amount      bigint      not null check (amount > 0),
    currency    text        not null,
    state       text        not null check (state in
        ('created', 'pending', 'unknown', 'authorised', 'succeeded', 'declined', 'not_sent',
         'closed', 'voided')),
    code        text,
    channel_ref text,
    payer       text,
    action      jsonb,                     -- what the customer is to do, as the channel said
    how         jsonb,                     -- what else the channel is told if it is asked again
    client_ip   text        not null,
    created_at  timestamptz not null,
    paid_at     timestamptz,
    queries     int         not null default 0,
    authorised_at      timestamptz,
    authorisation_ref  text,      -- the channel's number of the authorisation
    authorisation_code text,
    capture_id         uuid,      -- of the capture that took money set aside first
    capture_amount     bigint     check (capture_amount between 1 and amount),
    primary key (book, payment_id, id),
    check (state <> 'succeeded' or (channel_ref is not null and paid_at is not null)),
    check (state not in ('authorised', 'voided')
           or (authorisation_ref is not null and authorised_at is not null and paid_at is null)),
    check ((capture_id is null) = (capture_amount is null)),
    check (capture_id is null or (state = 'succeeded' and authorised_at is not null))
);
create unique index attempt_by_capture on attempt (capture_id, book) where capture_id is not null;
create unique index attempt_by_id on attempt (id, book);
-- One trade of a channel can pay one attempt only. The channel's number is unique at its account.
-- (The own wallet's reference is the attempt's own number.)
create unique index attempt_channel_ref on attempt (channel_ref, account_id, book)
    where channel_ref is not null and channel <> 'wallet';

create table refund (
    book               int         not null,
    id                 uuid        not null,
    payment_id         uuid        not null,
    attempt_id         uuid        not null,
    merchant_id        uuid        not null,
    mode               text        not null check (mode in ('live', 'sandbox')),
    merchant_refund_no text        not null check (length(merchant_refund_no) between 1 and 64),
    amount             bigint      not null check (amount > 0),
    currency           text        not null,
    fee_back           bigint      not null check (fee_back between 0 and amount),
    kind               text        not null check (kind in ('merchant', 'late')),
    reason             text        not null,
    state              text        not null
        check (state in ('requested', 'pending', 'unknown', 'succeeded', 'failed')),
    code               text,
    channel_ref        text,
    channel_at         timestamptz,
    created_at         timestamptz not null,
    ended_at           timestamptz,
    queries            int         not null default 0,
    version            int         not null default 1,
    primary key (book, id),
    unique (book, merchant_id, mode, merchant_refund_no),
    foreign key (book, payment_id) references payment (book, id),
    check ((ended_at is null) = (state in ('requested', 'pending', 'unknown')))
);
create index refund_by_id on refund (id);
create index refund_of_payment on refund (book, payment_id);
create index refund_of_merchant on refund (merchant_id, mode, id);

create table exchange (
    book        int         not null,
    id          uuid        not null,
    payment_id  uuid        not null,
    refund_id   uuid,
    purpose     text        not null check (purpose in
        ('pay', 'query', 'close', 'refund', 'query_refund', 'authorise', 'query_authorisation',
         'capture', 'query_capture', 'void')),
    method      text        not null,
    url         text        not null,
    request     text        not null,
    status      int,
    reply       text        not null,
    duration_ms int         not null,
    outcome     text        not null,
    at          timestamptz not null,
    primary key (book, id)
);
create index exchange_of_payment on exchange (book, payment_id, id);

create table payment_case (
    book        int         not null,
    id          uuid        not null,
    payment_id  uuid        not null,
    merchant_id uuid        not null,
    mode        text        not null check (mode in ('live', 'sandbox')),
    kind        text        not null check (kind in
        ('amount_differs', 'contradiction', 'late_success', 'refund_needs_people', 'undecided')),
    detail      text        not null,
    opened_at   timestamptz not null,
    closed_at   timestamptz,
    resolution  text,
    primary key (book, id),
    check ((closed_at is null) = (resolution is null))
);
create index payment_case_of_payment on payment_case (book, payment_id);
create index payment_case_open on payment_case (opened_at) where closed_at is null;

-- What channels told us, byte for byte, before anything is believed.
create table inbound_callback (
    id              uuid        not null primary key,
    account_id      uuid        not null,
    channel         text        not null,
    notification_id text        not null,
    headers         jsonb       not null,
    body            bytea       not null,
    number          text        not null,
    kind            text,                  -- what it speaks about
    callback        jsonb,                 -- as read after verification; none when forged
    state           text        not null check (state in
        ('received', 'processed', 'mismatched', 'orphaned', 'kept', 'forged', 'unreadable')),
    copies          int         not null default 1,
    received_at     timestamptz not null,
    processed_at    timestamptz,
    -- What nobody took, for people to look at. A column of its own, so that the index below is not
    -- touched by what is processed.
    aside           bool        not null generated always as
        (state in ('mismatched', 'orphaned', 'kept', 'forged', 'unreadable')) stored,
    check ((kind is null) = (callback is null))
);
create index inbound_callback_aside on inbound_callback (id) where aside;
create unique index inbound_callback_once on inbound_callback (account_id, notification_id)
    where callback is not null;
create unique index inbound_callback_refused_once on inbound_callback (account_id, notification_id)
    where callback is null;
create index inbound_callback_number on inbound_callback (number);
create index inbound_callback_at on inbound_callback (received_at);
