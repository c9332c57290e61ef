-- The façade for merchants who come from jeepay: how they are known there, what they asked for
-- through it, and what they are told. Money and states are in payment and refund, and only there.

create table jeepay_app (
    id             uuid not null primary key,
    merchant_id    uuid not null references merchant (id),
    mode           text not null check (mode in ('live', 'sandbox')),
    mch_no         text not null check (mch_no ~ '^[0-9A-Za-z_-]{1,64}$'),
    app_id         text not null unique check (app_id ~ '^[0-9A-Za-z_-]{1,64}$'),
    notify_by      text not null check (notify_by in ('form', 'query')),
    secret_sealed  bytea not null,
    secret_tail    text not null check (length(secret_tail) = 4),
    created_at     timestamptz not null,
    disabled_at    timestamptz
);
create index jeepay_app_by_merchant on jeepay_app (merchant_id, mode, id);

-- Written in the commit of its payment or checkout; the merchant's number is theirs for ever.
create table jeepay_order (
    merchant_id   uuid not null,
    mode          text not null check (mode in ('live', 'sandbox')),
    mch_order_no  text not null check (length(mch_order_no) between 1 and 64),
    app           uuid not null references jeepay_app (id),
    request_hash  bytea not null check (length(request_hash) = 32),
    kind          text not null check (kind in ('payment', 'checkout')),
    target        uuid not null unique,    -- the payment, or the checkout it is paid on
    way_code      text not null check (length(way_code) between 1 and 32),
    currency      text not null check (length(currency) = 3),   -- as it was written
    subject       text not null,
    body          text not null,
    client_ip     text not null,
    notify_url    text check (length(notify_url) between 1 and 2048),
    ext_param     text,
    shown_as      text not null,           -- the kind of payData that was asked for, if any
    created_at    timestamptz not null,
    primary key (merchant_id, mode, mch_order_no)
);

create table jeepay_refund (
    merchant_id    uuid not null,
    mode           text not null check (mode in ('live', 'sandbox')),
    mch_refund_no  text not null check (length(mch_refund_no) between 1 and 64),
    app            uuid not null references jeepay_app (id),
    request_hash   bytea not null check (length(request_hash) = 32),
    refund_id      uuid not null unique,
    order_target   uuid not null,
    currency       text not null check (length(currency) = 3),
    notify_url     text check (length(notify_url) between 1 and 2048),
    ext_param      text,
    created_at     timestamptz not null,
    primary key (merchant_id, mode, mch_refund_no)
);

-- What a merchant is told of one event, until they answer `success`. What is said is read when it
-- is said; ``told_state`` is the event's, whatever happened since.
create table jeepay_notice (
    id           uuid not null primary key,
    event_id     uuid not null unique,
    merchant_id  uuid not null,
    mode         text not null check (mode in ('live', 'sandbox')),
    app          uuid not null references jeepay_app (id),
    about        text not null check (about in ('order', 'refund')),
    target       uuid not null,            -- the order's target, or the refund
    told_state   int not null check (told_state in (2, 3)),
    url          text not null check (length(url) between 1 and 2048),
    state        text not null check (state in ('pending', 'answered', 'given_up', 'dropped')),
    round        int not null check (round >= 1),
    tries        int not null check (tries >= 0),
    last_status  int,
    last_reply   text not null,
    created_at   timestamptz not null,
    tried_at     timestamptz,
    closed_at    timestamptz,
    check ((state = 'pending') = (closed_at is null))
);
create index jeepay_notice_by_merchant on jeepay_notice (merchant_id, mode, id);
