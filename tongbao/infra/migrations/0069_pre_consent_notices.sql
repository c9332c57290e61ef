-- Partners are told how consents end, and people see when each was last used.

-- `last_used_at` follows within a minute, so that reading does not write each time;
-- `expiry_told_at` is when its end by time was told, for what ended otherwise is told at once.
-- Both are business time.
alter table open_consent
    add column last_used_at timestamptz,
    add column expiry_told_at timestamptz;
create index open_consent_of_partner on open_consent (partner_id, id) where state = 'authorised';
create index open_consent_to_expire on open_consent (expires_at)
    where state = 'authorised' and expiry_told_at is null;

-- A browser in which somebody looks at what they let others see and do. All times are real.
create table consent_visit (
    browser_hash  bytea primary key check (length(browser_hash) = 32),
    person_id     uuid not null references person (id),
    message_code  uuid not null,
    started_at    timestamptz not null,
    expires_at    timestamptz not null,
    proved_at     timestamptz
);
create index consent_visit_by_end on consent_visit (expires_at);
create index consent_visit_of on consent_visit (person_id);

-- Keys that sign our answers to partners (PS256), sealed; one is in use, those before it are still
-- published until they retire.
create table message_key (
    kid         text primary key check (length(kid) between 1 and 64),
    sealed      bytea not null,
    public_jwk  jsonb not null check (jsonb_typeof(public_jwk) = 'object'),
    created_at  timestamptz not null,
    retires_at  timestamptz
);
create unique index message_key_in_use on message_key ((retires_at is null))
    where retires_at is null;
