-- Who: merchants and their prices, API keys, operators, wallets; and what the HTTP edge remembers.

-- A nonce is single use per key for as long as signatures of its time are accepted.
create table api_nonce (
    key_id      uuid not null,
    nonce       text not null check (length(nonce) between 16 and 128),
    kept_until  timestamptz not null,
    primary key (key_id, nonce)
);
-- Nonces come and go in the order of time, so their places on disk say how old they are.
create index api_nonce_by_time on api_nonce using brin (kept_until);

-- Key and body hash stay for ever; the answer goes after 30 days.
create table idempotency_key (
    merchant_id  uuid not null,
    mode         text not null check (mode in ('live', 'sandbox')),
    route        text not null check (route <> ''),
    key_hash     bytea not null check (length(key_hash) = 32),
    body_hash    bytea not null check (length(body_hash) = 32),
    resource_id  uuid,
    status       int check (status between 200 and 599),
    response     bytea,
    created_at   timestamptz not null,
    lease_until  timestamptz not null,
    answered_at  timestamptz,
    primary key (merchant_id, mode, route, key_hash),
    check ((answered_at is null) = (status is null)),
    check (response is null or answered_at is not null),
    check (resource_id is not null or response is not null)
);
create index idempotency_key_by_answer on idempotency_key (answered_at)
    where response is not null and resource_id is not null;

-- Sandbox money never meets real money: each mode of a merchant has its book.
create table merchant (
    id                      uuid primary key,
    name                    text not null check (length(name) between 1 and 128),
    state                   text not null check (state in ('active', 'suspended')),
    live_book               int not null check (live_book > 0),
    sandbox_book            int not null check (sandbox_book > 0),
    late_success            text not null check (late_success in ('refund', 'accept_if_open')),
    settlement_delay_days   int not null check (settlement_delay_days between 0 and 30),
    bank_holder             text,
    bank_account_masked     text,
    bank_account_sealed     bytea,
    opened_at               timestamptz not null,
    check (live_book <> sandbox_book),
    check ((bank_account_sealed is null) = (bank_account_masked is null)),
    check ((bank_account_sealed is null) = (bank_holder is null))
);

create table price_plan (
    id                   uuid primary key,
    merchant_id          uuid not null references merchant (id),
    mode                 text not null check (mode in ('live', 'sandbox')),
    version              int not null check (version > 0),
    valid_from           timestamptz not null,
    currency             text not null check (currency ~ '^[A-Z]{3}$'),
    refund_returns_fee   boolean not null,
    lines                jsonb not null check (jsonb_typeof(lines) = 'array'),
    created_at           timestamptz not null,
    created_by           text not null check (created_by <> ''),
    unique (merchant_id, mode, version),
    unique (merchant_id, mode, valid_from)
);

-- The second book, for sandbox money; the first is there from the beginning.
insert into ledger_book (book, epoch, holder, lease_until, last_seq, last_batch, head_hash,
                         newest_id, frozen, stopped_because, closed_through, opened_at)
select 2, 0, '', deployment.created_at, 0, 0, decode(repeat('00', 32), 'hex'),
       '00000000-0000-0000-0000-000000000000', false, null, null, deployment.created_at
  from deployment;
insert into ledger_watermark (book, seq, batch) values (2, 0, 0);

-- Which of our accounts at a channel serves the merchant; the channels keep the accounts.
create table channel_route (
    merchant_id         uuid not null references merchant (id),
    mode                text not null check (mode in ('live', 'sandbox')),
    channel             text not null check (channel <> ''),
    channel_account_id  uuid not null,
    primary key (merchant_id, mode, channel)
);

create table api_key (
    id             uuid primary key,
    merchant_id    uuid not null references merchant (id),
    mode           text not null check (mode in ('live', 'sandbox')),
    name           text not null check (length(name) between 1 and 64),
    scopes         text[] not null check (cardinality(scopes) > 0),
    secret_sealed  bytea not null,
    secret_tail    text not null check (length(secret_tail) = 4),
    created_at     timestamptz not null,
    expires_at     timestamptz,
    revoked_at     timestamptz,
    last_used_at   timestamptz,
    rolled_to_id   uuid references api_key (id),
    check (rolled_to_id is null or expires_at is not null)
);
create index api_key_by_merchant on api_key (merchant_id, mode, id);

create table operator (
    id                uuid primary key,
    login             text not null unique check (login ~ '^[a-z0-9._@-]{3,64}$'),
    name              text not null check (length(name) between 1 and 128),
    role              text not null check (role in ('viewer', 'operator', 'finance', 'admin')),
    state             text not null check (state in ('active', 'disabled')),
    password_hash     text not null check (password_hash like '$argon2id$%'),
    totp_sealed       bytea not null,
    totp_last_step    bigint not null default 0 check (totp_last_step >= 0),
    failures          int not null default 0 check (failures >= 0),
    locked_until      timestamptz,
    created_at        timestamptz not null,
    is_first          boolean not null
);
-- Two installers at once cannot both be the first.
create unique index operator_first on operator (is_first) where is_first;

-- The cookie's token is not here, only its hash. Times are real ones.
create table operator_session (
    token_hash   bytea primary key check (length(token_hash) = 32),
    operator_id  uuid not null references operator (id),
    opened_at    timestamptz not null,
    seen_at      timestamptz not null,
    expires_at   timestamptz not null,
    check (opened_at <= expires_at)
);
create index operator_session_by_operator on operator_session (operator_id);
create index operator_session_by_expiry on operator_session (expires_at);

-- Only a licensed firm may hold its customers' money: elsewhere these tables do not exist.
do $$
begin
    if (select licence from deployment where id = 1) = 'aggregator' then
        return;
    end if;

    create table wallet (
        book                int not null check (book > 0),
        id                  uuid not null,
        merchant_id         uuid not null references merchant (id),
        mode                text not null check (mode in ('live', 'sandbox')),
        holder_masked       text not null check (length(holder_masked) between 1 and 64),
        currency            text not null check (currency ~ '^[A-Z]{3}$'),
        state               text not null check (state in ('active', 'frozen')),
        daily_limit         bigint not null check (daily_limit > 0),
        spent_on            date not null,
        spent               bigint not null check (spent >= 0),
        opened_at           timestamptz not null,
        primary key (book, id),
        check (spent <= daily_limit)
    ) with (fillfactor = 70);  -- spending stays on its page
    create index wallet_by_merchant on wallet (merchant_id, mode, id);

    create table payment_code (
        book        int not null,
        code_hash   bytea not null check (length(code_hash) = 32),
        wallet_id   uuid not null,
        mode        text not null check (mode in ('live', 'sandbox')),
        created_at  timestamptz not null,
        expires_at  timestamptz not null,
        used_at     timestamptz,
        used_by     uuid,
        primary key (book, code_hash),
        foreign key (book, wallet_id) references wallet (book, id),
        check ((used_at is null) = (used_by is null)),
        check (used_at < expires_at)
    ) with (fillfactor = 70);
    create index payment_code_by_expiry on payment_code (expires_at);
end
$$;
