-- What the machine itself remembers: the deployment, its test clock, number ranges, the audit log.

create table deployment (
    id          int primary key check (id = 1),
    licence     text not null check (licence in ('aggregator', 'payment_institution', 'bank')),
    created_at  timestamptz not null
);

-- The row exists only where the test clock is switched on; the offset never shrinks.
create table deployment_clock (
    id          int primary key check (id = 1),
    offset_us   bigint not null check (offset_us >= 0)
);

create table number_range (
    name         text primary key check (name <> ''),
    next_number  bigint not null check (next_number > 0)
);

create table audit_entry (
    id       uuid primary key,
    at       timestamptz not null,
    real_at  timestamptz not null,
    actor    text not null check (actor <> ''),
    origin   text not null,  -- an address and a request's id, the command line, or a task
    action   text not null check (action <> ''),
    subject  text not null,
    facts    jsonb not null check (jsonb_typeof(facts) = 'object')
);
create index audit_entry_by_subject on audit_entry (subject, id);

-- Append-only for the application: entries are corrected by further entries.
revoke update, delete, truncate on audit_entry from current_user;
