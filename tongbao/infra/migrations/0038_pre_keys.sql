-- Keys: the sealing keys that master keys wrap, what is known of master keys, and how they came
-- about.

-- One key per owner, purpose and month. An owner is a merchant in one mode; without one it is ours.
create table sealing_key (
    id                uuid        not null primary key,
    merchant_id       uuid,
    mode              text        check (mode in ('live', 'sandbox')),
    purpose           text        not null check (length(purpose) between 1 and 64),
    month             text        not null check (month ~ '^([0-9]{4}-[0-9]{2}|ever)$'),
    cipher            smallint    not null check (cipher in (1, 2)), -- AES-256-GCM, SM4-GCM
    master_key        text        not null,                          -- that wrapped it last
    wrapped           bytea,                                         -- gone once destroyed
    created_at        timestamptz not null,
    rewrapped_at      timestamptz,
    destroyed_at      timestamptz,
    destroyed_by      text,
    destroyed_because text,
    check ((merchant_id is null) = (mode is null)),
    check ((wrapped is null) = (destroyed_at is not null)),
    check ((destroyed_at is null) = (destroyed_by is null)),
    check ((destroyed_at is null) = (destroyed_because is null))
);
create unique index sealing_key_in_use on sealing_key (merchant_id, mode, purpose, month)
    nulls not distinct where destroyed_at is null;
create index sealing_key_of_master on sealing_key (master_key, id) where wrapped is not null;

-- What is known of a master key; the key itself is with its keeper, a file or a security module.
create table master_key (
    id          text        not null primary key,
    provider    text        not null check (provider in ('file', 'pkcs11')),
    version     int         not null check (version > 0),
    algorithm   text        not null,
    noted_at    timestamptz not null,
    expires_at  timestamptz not null check (expires_at > noted_at),
    ceremony_id uuid
);

-- A new master key that two custodians put together. The first one's component waits, sealed, for
-- the second one's; then it is gone, and what stays are their names and the check values.
create table key_ceremony (
    id               uuid        not null primary key,
    approval_id      uuid        not null unique,
    state            text        not null check (state in ('open', 'complete', 'abandoned')),
    opened_at        timestamptz not null,
    first_custodian  text,
    first_check      text        check (first_check ~ '^[0-9a-f]{6}$'),
    first_at         timestamptz,
    component_sealed bytea,
    second_custodian text        check (second_custodian <> first_custodian),
    second_check     text        check (second_check ~ '^[0-9a-f]{6}$'),
    closed_at        timestamptz,
    master_key       text,
    certificate      text,
    signature        bytea,
    check ((state = 'open') = (closed_at is null)),
    check (component_sealed is null or (state = 'open' and first_custodian is not null)),
    check ((first_custodian is null) = (first_check is null)),
    check ((first_custodian is null) = (first_at is null)),
    check ((state = 'complete') = (master_key is not null)),
    check ((state = 'complete') = (signature is not null))
);
create unique index key_ceremony_open on key_ceremony (state) where state = 'open';
