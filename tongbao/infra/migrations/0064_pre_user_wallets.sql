-- Wallets that a merchant's app opens for its own users, and what the users let it see and ask for.

-- A merchant has one programme in a mode. `grants`, `each_max` and `day_max` are what its next
-- applications ask people for; in real money two people of ours admit it first.
create table wallet_programme (
    id             uuid primary key,
    merchant_id    uuid not null references merchant (id),
    mode           text not null check (mode in ('live', 'sandbox')),
    name           text not null check (length(name) between 1 and 64),
    account_class  int not null check (account_class between 1 and 3),
    grants         text[] not null
        check (cardinality(grants) > 0 and grants <@ array['balance', 'statement', 'propose']),
    each_max       bigint not null check (each_max > 0),
    day_max        bigint not null check (day_max >= each_max),
    return_urls    text[] not null check (cardinality(return_urls) between 1 and 10),
    state          text not null check (state in ('pending', 'active', 'suspended')),
    created_at     timestamptz not null,
    changed_at     timestamptz not null,
    unique (merchant_id, mode)
);

-- One row for each user of a merchant's, for ever. What was asked for is written when a link is
-- made and stands from the consent on; `used` is what was confirmed on `used_day` by proposals.
create table wallet_application (
    id             uuid primary key,
    merchant_id    uuid not null references merchant (id),
    mode           text not null check (mode in ('live', 'sandbox')),
    user_ref       text not null check (length(user_ref) between 1 and 64),
    state          text not null check
        (state in ('created', 'in_progress', 'opened', 'refused', 'expired', 'ended')),
    code           text check (code <> ''),
    account_class  int not null check (account_class between 1 and 3),
    grants         text[] not null,
    each_max       bigint not null check (each_max > 0),
    day_max        bigint not null check (day_max >= each_max),
    used_day       date,
    used           bigint not null check (used between 0 and day_max),
    person_id      uuid references person (id),
    account_id     uuid,
    version        int not null check (version > 0),
    created_at     timestamptz not null,
    expires_at     timestamptz not null,
    opened_at      timestamptz,
    ended_at       timestamptz,
    ended_by       text check (ended_by <> ''),
    unique (merchant_id, mode, user_ref),
    check ((state = 'refused') = (code is not null)),
    check (state <> 'opened' or (person_id is not null and account_id is not null)),
    check ((state in ('opened', 'ended')) = (opened_at is not null)),
    check ((state = 'ended') = (ended_at is not null))
);
create index wallet_application_of on wallet_application (person_id, id)
    where person_id is not null;
create index wallet_application_newest on wallet_application (merchant_id, mode, created_at, id);
create index wallet_application_seen on wallet_application (mode, created_at, id);

-- What a merchant proposes that a person does with their account. The order on the account carries
-- this id as its request, so there is one however often it is asked for.
create table wallet_proposal (
    id              uuid primary key,
    merchant_id     uuid not null references merchant (id),
    mode            text not null check (mode in ('live', 'sandbox')),
    application_id  uuid not null references wallet_application (id),
    proposal_no     text not null check (length(proposal_no) between 1 and 64),
    kind            text not null check (kind in ('payment', 'top_up', 'withdrawal', 'transfer')),
    amount          bigint not null check (amount > 0),
    currency        text not null check (currency ~ '^[A-Z]{3}$'),
    payee_id        uuid,
    payment_code    text check (length(payment_code) between 1 and 512),
    purpose         text not null check (length(purpose) between 1 and 64),
    state           text not null check
        (state in ('awaiting', 'processing', 'done', 'failed', 'declined', 'expired')),
    code            text check (code <> ''),
    person_id       uuid not null references person (id),
    account_id      uuid not null,
    card_id         uuid,
    level           int,
    counted_day     date,
    order_id        uuid,
    version         int not null check (version > 0),
    created_at      timestamptz not null,
    expires_at      timestamptz not null,
    decided_at      timestamptz,
    ended_at        timestamptz,
    unique (merchant_id, mode, proposal_no),
    check ((kind = 'transfer') = (payee_id is not null)),
    check ((kind = 'payment') = (payment_code is not null)),
    check ((state = 'failed') = (code is not null)),
    check (state not in ('processing', 'done') or (decided_at is not null and level is not null)),
    check ((state in ('awaiting', 'processing')) = (ended_at is null))
);
create index wallet_proposal_newest on wallet_proposal (merchant_id, mode, created_at, id);
create index wallet_proposal_of on wallet_proposal (application_id, id);
create index wallet_proposal_of_person on wallet_proposal (person_id, id);

-- One link to a hosted page and the browser that opened it. Secrets are here as SHA-256; they have
-- 256 bits. All times are real. The address is sealed, and forgotten with the end.
create table wallet_session (
    id              uuid primary key,
    merchant_id     uuid not null references merchant (id),
    mode            text not null check (mode in ('live', 'sandbox')),
    application_id  uuid not null references wallet_application (id),
    proposal_id     uuid references wallet_proposal (id),
    purpose         text not null check (purpose in ('open', 'manage', 'confirm')),
    return_url      text not null check (return_url <> ''),
    link_hash       bytea not null unique check (length(link_hash) = 32),
    browser_hash    bytea unique check (length(browser_hash) = 32),
    device          bytea check (length(device) = 32),
    contact_sealed  bytea,
    agreed          jsonb not null,
    message_code    uuid,
    proved_at       timestamptz,
    person_id       uuid references person (id),
    card_id         uuid,
    created_at      timestamptz not null,
    expires_at      timestamptz not null,
    ended_at        timestamptz,
    check ((purpose = 'confirm') = (proposal_id is not null)),
    check (proved_at is null or message_code is not null),
    check (ended_at is null or contact_sealed is null)
);
create index wallet_session_of on wallet_session (application_id);
create index wallet_session_by_end on wallet_session (expires_at);
