-- Facts that happened, work to do about them, and telling merchants.

-- The outbox: written with the fact, dispatched once to every subscriber and webhook endpoint.
create table event (
    id uuid primary key,
    type text not null check (type ~ '^[a-z0-9_]+(\.[a-z0-9_]+)+$'),
    merchant_id uuid,
    mode text not null check (mode in ('live', 'sandbox')),
    resource_id text not null,
    body jsonb not null,
    at timestamptz not null,
    dispatched_at timestamptz
);
create index event_undispatched on event (at, id) where dispatched_at is null;
create index event_of_merchant on event (merchant_id, mode, at desc, id desc);
create index event_of_resource on event (resource_id, at, id);

-- Unfinished work only: a finished task is deleted, a hopeless one moves to dead_letter, so the
-- table stays as small as the backlog. attempt is the fencing token; run_at is business time,
-- lease_until real time. Rows change often and live briefly, hence the eager vacuum.
create table task (
    id uuid primary key,
    type text not null check (type <> ''),
    args jsonb not null,
    key text,
    run_at timestamptz not null,
    attempt int not null default 0 check (attempt >= 0),
    failures int not null default 0 check (failures >= 0),
    lease_until timestamptz,
    last_failure text,
    check (lease_until is null or attempt > 0)
) with (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 500
);
create unique index task_key on task (type, key) where key is not null;
create index task_due on task (run_at, id);

create table dead_letter (
    id uuid primary key,
    type text not null,
    args jsonb not null,
    key text,
    attempts int not null check (attempts >= 0),
    reason text not null,
    died_at timestamptz not null
);
create index dead_letter_newest on dead_letter (died_at desc, id desc);

-- Where a merchant hears of events. The slot makes "at most 16 in use" a unique key instead of a
-- count that two requests could race past.
create table webhook_endpoint (
    id uuid primary key,
    merchant_id uuid not null,
    mode text not null check (mode in ('live', 'sandbox')),
    slot int check (slot between 1 and 16),
    url text not null check (url ~ '^https?://'),
    description text not null,
    event_types text[] not null check (cardinality(event_types) > 0),
    state text not null check (state in ('enabled', 'disabled', 'deleted')),
    disabled_because text check (disabled_because in ('merchant', 'gone', 'failing')),
    failing_since timestamptz,
    failures_in_row int not null default 0 check (failures_in_row >= 0),
    resting_until timestamptz,
    created_at timestamptz not null,
    check ((state = 'deleted') = (slot is null)),
    check ((state = 'disabled') = (disabled_because is not null)),
    check (mode = 'sandbox' or url like 'https://%'),
    unique (merchant_id, mode, slot)
);

-- One signing key pair of an endpoint; two are in use while a rotation overlaps.
create table webhook_key (
    id uuid primary key,
    endpoint_id uuid not null references webhook_endpoint (id),
    sealed bytea not null,
    public_key text not null,
    created_at timestamptz not null,
    retires_at timestamptz
);
create index webhook_key_of_endpoint on webhook_key (endpoint_id);

-- One event for one endpoint, once; a replay opens the next round of the same delivery.
create table webhook_delivery (
    id uuid primary key,
    endpoint_id uuid not null references webhook_endpoint (id),
    event_id uuid not null,
    merchant_id uuid not null,
    mode text not null check (mode in ('live', 'sandbox')),
    resource_id text not null,
    event_type text not null,
    state text not null check (state in ('pending', 'succeeded', 'failed')),
    round int not null check (round >= 1),
    tries int not null check (tries >= 0),
    attempts int not null check (attempts >= tries),
    next_at timestamptz,
    last_status int,
    created_at timestamptz not null,
    closed_at timestamptz,
    check ((state = 'pending') = (closed_at is null)),
    check ((state = 'pending') = (next_at is not null)),
    unique (endpoint_id, event_id)
);
create index webhook_delivery_of_endpoint
    on webhook_delivery (endpoint_id, created_at desc, id desc);
create index webhook_delivery_of_event on webhook_delivery (event_id);
create index webhook_delivery_of_resource on webhook_delivery (resource_id, created_at, id);

create table webhook_attempt (
    delivery_id uuid not null references webhook_delivery (id),
    number int not null check (number >= 1),
    merchant_id uuid not null,
    mode text not null check (mode in ('live', 'sandbox')),
    at timestamptz not null,
    outcome text not null check (outcome in (
        'delivered', 'rejected', 'redirected', 'throttled', 'gone', 'no_answer', 'not_sent'
    )),
    status int,
    duration_ms int not null check (duration_ms >= 0),
    reply text not null check (length(reply) <= 1024),
    primary key (delivery_id, number)
);
