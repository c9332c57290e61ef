-- What people let partners of the open bank see and do, and the grants that came of it.

-- Which wallets are a person's own: whoever could show a wallet's payment code has claimed it.
create table person_wallet (
    person_id   uuid not null,
    book        int not null,
    wallet_id   uuid not null,
    claimed_at  timestamptz not null,
    primary key (book, wallet_id)
);
create index person_wallet_of on person_wallet (person_id);

-- `details` is the partner's wish as it came (RFC 9396) and never changes; the columns beside it
-- are what the program decides by.
create table open_consent (
    id           uuid primary key,
    partner_id   uuid not null references partner (id),
    mode         text not null check (mode in ('live', 'sandbox')),
    kind         text not null
        check (kind in ('account_information', 'payment_initiation', 'funds_confirmation')),
    details      jsonb not null check (jsonb_typeof(details) = 'object'),
    permissions  text[] not null,
    amount       bigint check (amount > 0),
    currency     text,
    payee        uuid,
    payee_name   text check (length(payee_name) between 1 and 64),
    state        text not null
        check (state in ('awaiting', 'authorised', 'rejected', 'revoked', 'consumed')),
    person_id    uuid references person (id),
    accounts     uuid[] not null,
    expires_at   timestamptz not null,
    created_at   timestamptz not null,
    decided_at   timestamptz,
    ended_at     timestamptz,
    ended_by     text,
    check ((kind = 'payment_initiation') = (amount is not null)),
    check ((amount is null) = (currency is null) and (amount is null) = (payee is null)),
    check ((state = 'awaiting') = (decided_at is null)),
    check (state in ('awaiting', 'rejected') or person_id is not null),
    check (state not in ('authorised', 'consumed') or cardinality(accounts) > 0),
    check (state <> 'consumed' or kind = 'payment_initiation'),
    check ((state in ('revoked', 'consumed')) = (ended_at is not null))
);
create index open_consent_of on open_consent (person_id, id) where person_id is not null;

-- One pushed request (RFC 9126), from the push to its code. Secrets are here as SHA-256; they have
-- 256 bits. All times are real.
create table authorisation (
    id                uuid primary key,
    partner_id        uuid not null references partner (id),
    consent_id        uuid not null references open_consent (id),
    request_hash      bytea not null unique check (length(request_hash) = 32),
    redirect_uri      text not null,
    code_challenge    text not null check (length(code_challenge) = 43),
    client_state      text check (length(client_state) <= 512),
    jkt               text check (length(jkt) = 43),
    pushed_at         timestamptz not null,
    expires_at        timestamptz not null,
    browser_hash      bytea check (length(browser_hash) = 32),
    person_id         uuid references person (id),
    chosen            uuid[] not null,
    message_code      uuid,
    code_hash         bytea unique check (length(code_hash) = 32),
    code_expires_at   timestamptz,
    code_used_at      timestamptz,
    ended_at          timestamptz,
    check ((code_hash is null) = (code_expires_at is null)),
    check (code_used_at is null or code_hash is not null)
);
create index authorisation_by_browser on authorisation (browser_hash)
    where browser_hash is not null;
create index authorisation_by_end on authorisation (expires_at);

create table partner_token (
    token_hash        bytea primary key check (length(token_hash) = 32),
    kind              text not null check (kind in ('access', 'refresh')),
    authorisation_id  uuid not null references authorisation (id),
    partner_id        uuid not null references partner (id),
    consent_id        uuid not null references open_consent (id),
    jkt               text not null check (length(jkt) = 43),
    issued_at         timestamptz not null,
    expires_at        timestamptz not null,
    revoked_at        timestamptz
);
create index partner_token_of_consent on partner_token (consent_id);
create index partner_token_by_end on partner_token (expires_at);

-- The one payment of a consent; a second cannot be written, for a consent's mode has one book.
create table consent_payment (
    book        int not null,
    consent_id  uuid not null,
    payment_id  uuid not null,
    partner_id  uuid not null,
    mode        text not null check (mode in ('live', 'sandbox')),
    payer       uuid not null,
    payee       uuid not null,
    amount      bigint not null check (amount > 0),
    currency    text not null,
    paid_at     timestamptz not null,
    primary key (book, consent_id),
    unique (book, payment_id)
);
