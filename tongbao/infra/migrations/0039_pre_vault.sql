-- The vault: card numbers, and the tokens that stand for them. A schema of its own, so that one
-- database role can be given this and nothing else, and every other role nothing of this.
create schema vault;
revoke all on schema vault from public;

-- A merchant's card. Its number and expiry are sealed under a sealing key of the merchant; its
-- security code is never here. Nothing but the first six and the last four digits is shown.
create table vault.card (
    id             uuid        not null primary key,
    merchant_id    uuid        not null,
    mode           text        not null check (mode in ('live', 'sandbox')),
    fingerprint    bytea       not null check (length(fingerprint) = 32), -- keyed, of this merchant
    par            text        not null check (par ~ '^[0-9A-Z]{29}$'),
    bin            text        not null check (bin ~ '^[0-9]{6}$'),
    last4          text        not null check (last4 ~ '^[0-9]{4}$'),
    scheme         text        not null,
    state          text        not null check (state in ('active', 'deleted')),
    sealed         bytea,                                                 -- gone once deleted
    created_at     timestamptz not null,
    changed_at     timestamptz not null,
    check ((state = 'deleted') = (sealed is null))
);
create unique index card_of_merchant on vault.card (merchant_id, mode, fingerprint)
    where state = 'active';
create index card_listed on vault.card (merchant_id, mode, id);

-- Who may ask for tokens, by the number that EMV calls a token requestor id.
create table vault.requestor (
    number      text        not null primary key check (number ~ '^[0-9]{11}$'),
    merchant_id uuid        not null,
    mode        text        not null check (mode in ('live', 'sandbox')),
    created_at  timestamptz not null,
    unique (merchant_id, mode)
);

create table vault.token (
    id              uuid        not null primary key,
    card_id         uuid        not null references vault.card (id),
    merchant_id     uuid        not null,
    mode            text        not null check (mode in ('live', 'sandbox')),
    number          text        not null unique check (number ~ '^[0-9]{16}$'),
    requestor       text        not null references vault.requestor (number),
    kind            text        not null check (kind in ('card_on_file', 'device')),
    state           text        not null check (state in
        ('requested', 'active', 'suspended', 'deleted', 'replaced')),
    assurance       text        not null check (assurance ~ '^[0-9]{2}$'),
    -- What it may be used for. An empty list of ways of paying is all of them.
    channels        text[]      not null,
    pay_modes       text[]      not null,
    currency        text        not null check (currency ~ '^[A-Z]{3}$'),
    amount_each_max bigint      check (amount_each_max > 0),
    amount_max      bigint      check (amount_max > 0),
    uses_max        bigint      check (uses_max > 0),
    expires_at      timestamptz not null check (expires_at > created_at),
    -- Running totals, held against the limits by the row's own lock.
    amount_used     bigint      not null check
        (amount_used between 0 and coalesce(amount_max, amount_used)),
    uses            bigint      not null check (uses between 0 and coalesce(uses_max, uses)),
    replaced_by     uuid,
    created_at      timestamptz not null,
    changed_at      timestamptz not null,
    check ((state = 'replaced') = (replaced_by is not null))
);
create index token_of_card on vault.token (card_id, id);
create index token_of_merchant on vault.token (merchant_id, mode, id);

-- Limited-use keys: each makes so many cryptograms, each cryptogram pays once.
create table vault.use_key (
    id            uuid        not null primary key,
    token_id      uuid        not null references vault.token (id),
    merchant_id   uuid        not null,
    mode          text        not null check (mode in ('live', 'sandbox')),
    number        int         not null check (number > 0),
    state         text        not null check (state in ('active', 'ended')),
    sealed        bytea,
    uses_max      int         not null check (uses_max > 0),
    refill_at     int         not null check (refill_at between 0 and uses_max),
    uses          int         not null check (uses between 0 and uses_max),
    last_counter  int         not null check (last_counter >= 0),
    expires_at    timestamptz not null,
    created_at    timestamptz not null,
    unique (token_id, number),
    check (state = 'active' or sealed is null)
);

-- One use of a token, by the number that the card host knows it by: the same number again is the
-- same use, and a counter is used once.
create table vault.token_use (
    token_id    uuid        not null references vault.token (id),
    reference   text        not null check (length(reference) between 1 and 64),
    merchant_id uuid        not null,
    mode        text        not null check (mode in ('live', 'sandbox')),
    amount      bigint      not null check (amount > 0),
    currency    text        not null,
    key_number  int,
    counter     int,
    used_at     timestamptz not null,
    primary key (token_id, reference),
    unique (token_id, key_number, counter),
    check ((key_number is null) = (counter is null))
);
