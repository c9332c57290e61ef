-- What partners of the open bank may do before anybody has consented: lodge what they will ask for.

-- Tokens of `client_credentials`, as SHA-256 of 256 bits, bound to a key. All times are real.
create table partner_access (
    token_hash  bytea primary key check (length(token_hash) = 32),
    partner_id  uuid not null references partner (id),
    scope       text not null check (scope in ('accounts', 'payments')),
    jkt         text not null check (length(jkt) = 43),
    issued_at   timestamptz not null,
    expires_at  timestamptz not null
);
create index partner_access_by_end on partner_access (expires_at);

-- Consents that were lodged under a key of the partner's: the same key, the same consent for ever.
create table lodged_consent (
    partner_id  uuid not null references partner (id),
    key_hash    bytea not null check (length(key_hash) = 32),
    body_hash   bytea not null check (length(body_hash) = 32),
    consent_id  uuid not null unique references open_consent (id),
    primary key (partner_id, key_hash)
);
