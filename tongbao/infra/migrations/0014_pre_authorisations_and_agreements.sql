-- What becomes of money that was set aside: a capture takes it, or a part of it, once; a void lets
-- it go. Each is a row with a number of its own at the channel. At most one is under way for an
-- attempt, and at most one has succeeded; what it may take is guarded on the payment's own row.

create table completion (
    book        int         not null,
    id          uuid        not null,
    payment_id  uuid        not null,
    attempt_id  uuid        not null,
    account_id  uuid        not null,
    merchant_id uuid        not null,
    mode        text        not null check (mode in ('live', 'sandbox')),
    kind        text        not null check (kind in ('capture', 'void')),
    why         text        not null check (why in ('merchant', 'expired', 'late')),
    amount      bigint      not null check (amount > 0),
    currency    text        not null,
    fee         bigint      not null check (fee between 0 and amount),
    state       text        not null
        check (state in ('requested', 'pending', 'unknown', 'succeeded', 'failed')),
    code        text,
    channel_ref text,
    channel_at  timestamptz,
    created_at  timestamptz not null,
    ended_at    timestamptz,
    queries     int         not null default 0,
    version     int         not null default 1,
    primary key (book, id),
    foreign key (book, payment_id) references payment (book, id),
    check ((ended_at is null) = (state in ('requested', 'pending', 'unknown'))),
    check (kind = 'void' or why = 'merchant'),
    check (state <> 'succeeded' or kind = 'void'
           or (channel_ref is not null and channel_at is not null))
);
create unique index completion_by_id on completion (id, book);
create index completion_of_payment on completion (book, payment_id, id);
create unique index completion_under_way on completion (attempt_id, book) where ended_at is null;
create unique index completion_succeeded on completion (attempt_id, book)
    where state = 'succeeded';
-- What was set aside too late is let go once.
create unique index completion_late on completion (attempt_id, book) where why = 'late';
-- One trade of a channel is one capture only. The channel's number is unique at its account.
create unique index completion_channel_ref on completion (channel_ref, account_id, book)
    where channel_ref is not null and kind = 'capture';

-- What a customer has signed: that a merchant may take money without asking each time. How much was
-- taken in the present period is a total on this row, so that the limit holds whoever takes.
create table agreement (
    book                  int         not null,
    id                    uuid        not null,
    merchant_id           uuid        not null,
    mode                  text        not null check (mode in ('live', 'sandbox')),
    merchant_agreement_no text        not null
        check (length(merchant_agreement_no) between 1 and 64),
    request_hash          bytea       not null,
    channel               text        not null,
    account_id            uuid        not null,
    plan                  text        not null,
    display_name          text        not null,
    payer_id              text,
    return_url            text,
    currency              text        not null check (length(currency) = 3),
    limit_each            bigint      check (limit_each > 0),
    period                text        check (period in ('day', 'week', 'month', 'year')),
    limit_per_period      bigint      check (limit_per_period > 0),
    period_begins         date        not null,
    used                  bigint      not null default 0,
    state                 text        not null check (state in
        ('created', 'pending', 'unknown', 'active', 'ending', 'ended', 'failed')),
    agreement_ref         text,
    payer                 text,
    action                jsonb,
    code                  text,
    created_at            timestamptz not null,
    expires_at            timestamptz not null,
    signed_at             timestamptz,
    ends_at               timestamptz,
    ended_at              timestamptz,
    queries               int         not null default 0,
    version               int         not null default 1,
    primary key (book, id),
    unique (merchant_agreement_no, merchant_id, mode, book),
    check ((period is null) = (limit_per_period is null)),
    check (used >= 0 and (limit_per_period is null or used <= limit_per_period)),
    check (state not in ('active', 'ending')
           or (agreement_ref is not null and signed_at is not null)),
    check ((ended_at is null) = (state in ('created', 'pending', 'unknown', 'active', 'ending')))
);
create unique index agreement_by_id on agreement (id, book);
create index agreement_of_merchant on agreement (merchant_id, mode, id);
create unique index agreement_ref_once on agreement (agreement_ref, account_id, book)
    where agreement_ref is not null;

-- What each payment takes of an agreement's limit, until it has ended unpaid.
create table agreement_use (
    book          int         not null,
    payment_id    uuid        not null,
    agreement_id  uuid        not null,
    amount        bigint      not null check (amount > 0),
    period_begins date        not null,
    at            timestamptz not null,
    released_at   timestamptz,
    primary key (book, payment_id),
    foreign key (book, agreement_id) references agreement (book, id)
);
create index agreement_use_of on agreement_use (book, agreement_id, payment_id);

create table agreement_exchange (
    book         int         not null,
    id           uuid        not null,
    agreement_id uuid        not null,
    purpose      text        not null check (purpose in ('offer', 'query', 'end')),
    method       text        not null,
    url          text        not null,
    request      text        not null,
    status       int,
    reply        text        not null,
    duration_ms  int         not null,
    outcome      text        not null,
    at           timestamptz not null,
    primary key (book, id),
    foreign key (book, agreement_id) references agreement (book, id)
);
create index agreement_exchange_of on agreement_exchange (book, agreement_id, id);
