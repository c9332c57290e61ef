-- Routing: which rules are in force, how every account fares, what was decided of each payment.

-- A payment may be tried again elsewhere; of its attempts one at most is paid or may be.
create unique index attempt_live on attempt (payment_id, book)
    where state not in ('declined', 'not_sent', 'closed') and channel <> 'wallet';

create table routing_rule_set (
    id          uuid not null primary key,
    mode        text not null check (mode in ('live', 'sandbox')),
    number      int not null check (number > 0),
    name        text not null check (length(name) between 1 and 64),
    source      text not null check (length(source) between 1 and 262144),
    state       text not null check (state in ('draft', 'active', 'withdrawn')),
    is_shadow   boolean not null,    -- a draft that is evaluated beside the rules in force
    maker       text not null check (maker <> ''),
    made_at     timestamptz not null,
    checker     text,
    decided_at  timestamptz,
    valid_from  timestamptz,         -- active: in force from here until the next one's
    unique (mode, number),
    unique (mode, valid_from),
    constraint routing_rule_set_four_eyes check (state <> 'active' or checker <> maker),
    check ((state = 'draft') = (decided_at is null)),
    check ((state = 'draft') = (checker is null)),
    check ((state = 'active') = (valid_from is not null)),
    check (state = 'draft' or not is_shadow)
);
create unique index routing_rule_set_shadow on routing_rule_set (mode) where is_shadow;

-- What a draft beside the rules in force would have chosen, counted by business day.
create table routing_shadow (
    rule_set_id  uuid not null references routing_rule_set (id),
    day          date not null,
    decided      bigint not null check (decided >= 0),
    differed     bigint not null check (differed between 0 and decided),
    cost_less    bigint not null,    -- minor units saved, below zero where the draft costs more
    primary key (rule_set_id, day)
);

-- Figures by account, way of paying and class of cards, in buckets of ten seconds of real time.
create table routing_bucket (
    account_id  uuid not null,
    pay_mode    text not null,
    bin_class   text not null,
    bucket      timestamptz not null,
    calls       int not null check (calls >= 0),
    lost        int not null check (lost between 0 and calls),
    total_ms    bigint not null check (total_ms >= 0),
    tried       int not null check (tried >= 0),
    won         int not null check (won between 0 and tried),
    primary key (account_id, pay_mode, bin_class, bucket)
);
create index routing_bucket_by_time on routing_bucket (bucket);

create table routing_breaker (
    account_id   uuid not null primary key,
    gate         text not null check (gate in ('up', 'probing', 'down')),
    since        timestamptz not null,
    trips        int not null check (trips >= 0),
    probes_left  int not null check (probes_left >= 0),
    probe_calls  int not null check (probe_calls >= 0),
    probe_lost   int not null check (probe_lost between 0 and probe_calls),
    why          text not null,
    version      int not null check (version >= 0),
    check (gate = 'probing' or probes_left = 0)
);

-- What an account took on a business day; raised in the commit of the payment, within its limits.
create table routing_quota (
    account_id  uuid not null,
    day         date not null,
    currency    text not null check (length(currency) = 3),
    amount      bigint not null check (amount >= 0),
    payments    int not null check (payments >= 0),
    primary key (account_id, day, currency)
);

create table routing_decision (
    book         int not null,
    attempt_id   uuid not null,
    payment_id   uuid not null,
    merchant_id  uuid not null,
    mode         text not null check (mode in ('live', 'sandbox')),
    rule_set_id  uuid,               -- none: the figures alone decided
    rule         text not null,
    manner       text not null
        check (manner in ('value', 'order', 'split', 'explore', 'probe')),
    account_id   uuid not null,
    channel      text not null,
    bin_class    text not null,
    candidates   jsonb not null check (jsonb_typeof(candidates) = 'array'),
    excluded     jsonb not null check (jsonb_typeof(excluded) = 'array'),
    shadow_id    uuid,               -- the account that the draft beside them would have chosen
    day          date not null,
    currency     text not null,
    amount       bigint not null check (amount > 0),
    is_counted   boolean not null,   -- in routing_quota, until the attempt ends unpaid
    at           timestamptz not null,
    primary key (book, attempt_id)
);
create index routing_decision_of_payment on routing_decision (payment_id, book);
