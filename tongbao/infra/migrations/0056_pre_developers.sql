-- People who write programs against the API and signed up for the sandbox by themselves: each has a
-- merchant of their own there. Their passwords and codes are kept where everybody's are.

create table developer (
    id            uuid primary key,
    merchant_id   uuid not null unique references merchant (id),
    mode          text not null default 'sandbox' check (mode in ('live', 'sandbox')),
    mail_blind    bytea not null unique check (length(mail_blind) = 32),
    mail_sealed   bytea not null,
    mail_masked   text not null check (mail_masked <> ''),
    failures      int not null default 0 check (failures >= 0),
    locked_until  timestamptz,
    created_at    timestamptz not null,
    check (mode = 'sandbox')            -- nobody comes to real money by signing up
);

create table developer_session (
    token_hash    bytea primary key check (length(token_hash) = 32),
    developer_id  uuid not null references developer (id),
    opened_at     timestamptz not null,
    seen_at       timestamptz not null,
    expires_at    timestamptz not null
);
create index developer_session_by_developer on developer_session (developer_id);
