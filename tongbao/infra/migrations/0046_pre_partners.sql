-- Partners of the open bank: third parties that ask for people's accounts with their consent.

-- Taken on, and changed, by two operators. `jwks` has public keys only.
create table partner (
    id             uuid primary key,
    mode           text not null check (mode in ('live', 'sandbox')),
    name           text not null check (length(name) between 1 and 64),
    redirect_uris  text[] not null check (cardinality(redirect_uris) between 1 and 10),
    jwks           jsonb not null check (jsonb_typeof(jwks) = 'array'),
    kinds          text[] not null check (cardinality(kinds) > 0),
    state          text not null check (state in ('active', 'suspended', 'gone')),
    taken_on_at    timestamptz not null,
    changed_at     timestamptz not null
);

-- What was signed to be used once: client assertions and DPoP proofs, by who signed and the `jti`.
-- All times are real.
create table seen_token (
    signer      bytea not null check (length(signer) = 32),
    jti         bytea not null check (length(jti) = 32),
    expires_at  timestamptz not null,
    primary key (signer, jti)
);
create index seen_token_by_end on seen_token (expires_at);
