-- Cars at car parks whose fee is taken from what their owner agreed to at the channel; refunds sent
-- on to a customer's card; and what an agreement may come to in all.

create table parking_visit (
    book              int         not null,
    id                uuid        not null,
    merchant_id       uuid        not null,
    mode              text        not null check (mode in ('live', 'sandbox')),
    merchant_visit_no text        not null check (length(merchant_visit_no) between 1 and 64),
    request_hash      bytea       not null,
    channel           text        not null,
    account_id        uuid        not null,
    plate_sealed      bytea       not null,
    place             text        not null check (place <> ''),
    lot               text        not null,
    free_s            int         not null check (free_s >= 0),
    state             text        not null
        check (state in ('created', 'unknown', 'open', 'blocked', 'left')),
    visit_ref         text,
    code              text,
    entered_at        timestamptz not null,
    left_at           timestamptz check (left_at >= entered_at),
    exit_told_at      timestamptz,
    payment_id        uuid,
    charges           int         not null default 0 check (charges >= 0),
    created_at        timestamptz not null,
    version           int         not null default 1,
    primary key (book, id),
    unique (merchant_visit_no, merchant_id, mode, book),
    check ((payment_id is null) = (charges = 0)),
    check (state <> 'left' or left_at is not null),
    check (state <> 'open' or visit_ref is not null)
);
create unique index parking_visit_by_id on parking_visit (id, book);
create index parking_visit_of_merchant on parking_visit (merchant_id, mode, id);

create table parking_exchange (
    book         int         not null,
    id           uuid        not null,
    visit_id     uuid        not null,
    purpose      text        not null check (purpose in ('enter', 'leave')),
    method       text        not null,
    url          text        not null,
    request      text        not null,
    status       int,
    reply        text        not null,
    duration_ms  int         not null,
    outcome      text        not null,
    at           timestamptz not null,
    primary key (book, id),
    foreign key (book, visit_id) references parking_visit (book, id)
);
create index parking_exchange_of on parking_exchange (book, visit_id, id);

-- Where a refund goes that the customer's card or account could not take. Who it is for lies sealed
-- until the channel has it, and nowhere after.
create table refund_redirection (
    book         int         not null,
    refund_id    uuid        not null,
    merchant_id  uuid        not null,
    mode         text        not null check (mode in ('live', 'sandbox')),
    request_hash bytea       not null,
    target       text        not null check (target in ('customer_card', 'merchant_account')),
    sealed       bytea,
    state        text        not null check (state in ('requested', 'accepted', 'refused')),
    code         text,
    tries        int         not null default 0,
    asked_at     timestamptz not null,
    ended_at     timestamptz,
    primary key (book, refund_id),
    check ((state = 'requested') = (ended_at is null)),
    check (sealed is null or state = 'requested')
);

alter table agreement
    add column limit_total   bigint check (limit_total > 0),
    add column payments_max  int    check (payments_max > 0),
    add column used_total    bigint not null default 0 check (used_total >= 0),
    add column payments_used int    not null default 0 check (payments_used >= 0),
    add constraint agreement_total_kept check (limit_total is null or used_total <= limit_total),
    add constraint agreement_payments_kept
        check (payments_max is null or payments_used <= payments_max);
