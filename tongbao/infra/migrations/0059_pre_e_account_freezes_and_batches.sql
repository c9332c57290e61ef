-- Freezes of an amount and with dates of their own, and transfers in batches.

-- What freezes keep in the account together; it may be more than is there (轮候冻结).
alter table e_account add column held bigint not null default 0 check (held >= 0);

-- `amount` null: everything in the direction. A freeze counts from `began_at` until it is lifted;
-- `ends_at` null: until somebody lifts it.
alter table e_account_freeze
    add column amount bigint check (amount > 0),
    add column starts_at timestamptz,
    add column ends_at timestamptz,
    add column began_at timestamptz;
update e_account_freeze set starts_at = set_at, began_at = set_at;
alter table e_account_freeze
    alter column starts_at set not null,
    add constraint e_account_freeze_amount_goes_out check (amount is null or direction = 'out'),
    add constraint e_account_freeze_dates check (ends_at is null or ends_at > starts_at);

-- Transfers that were confirmed together; each is an order of its own.
create table e_account_batch (
    book        int not null references ledger_book (book),
    id          uuid not null,
    account_id  uuid not null,
    person_id   uuid not null,
    mode        text not null check (mode in ('live', 'sandbox')),
    request_id  text not null check (length(request_id) between 1 and 64),
    digest      bytea not null check (length(digest) = 32),
    orders      int not null check (orders between 1 and 500),
    amount      bigint not null check (amount > 0),
    currency    text not null check (currency ~ '^[A-Z]{3}$'),
    run_at      timestamptz not null,
    made_at     timestamptz not null,
    primary key (book, id),
    unique (book, account_id, request_id),
    foreign key (book, account_id) references e_account (book, id)
);
alter table e_account_order add column batch_id uuid;
create index e_account_order_of_batch on e_account_order (book, batch_id, id)
    where batch_id is not null;

-- Virtual cards: numbers of the firm's own that pay from an electronic account, within limits of
-- their own. The number is in the vault only; `par` finds the card by it. Running totals are held
-- against the limits by the row's own lock, in the ledger's commit.
insert into opening_rule (kind, name, valid_from, figure, instrument) values
    ('virtual_card', 'bin', '2026-01-01', 990002,
        '本平台设定：9 开头为 ISO/IEC 7812 国内自用号段，非卡组织分配；取得自有卡 BIN 后以新行替换'),
    ('virtual_card', 'cards_max', '2026-01-01', 5, '本平台设定：每个电子账户'),
    ('virtual_card', 'months_valid', '2026-01-01', 36, '本平台设定');
create table virtual_card (
    book           int not null references ledger_book (book),
    id             uuid not null,
    account_id     uuid not null,
    person_id      uuid not null,
    mode           text not null check (mode in ('live', 'sandbox')),
    request_id     text not null check (length(request_id) between 1 and 64),
    vault_card_id  uuid not null,
    par            text not null check (par ~ '^[0-9A-Z]{29}$'),
    bin            text not null check (bin ~ '^[0-9]{6}$'),
    last4          text not null check (last4 ~ '^[0-9]{4}$'),
    state          text not null check (state in ('active', 'frozen', 'closed')),
    each_max       bigint check (each_max > 0),
    day_max        bigint check (day_max > 0),
    total_max      bigint check (total_max > 0),
    day            date not null,
    day_used       bigint not null check (day_used >= 0),
    used           bigint not null check (used >= 0),
    uses           int not null check (uses >= 0),
    expires_at     timestamptz not null,
    created_at     timestamptz not null,
    closed_at      timestamptz,
    primary key (book, id),
    unique (book, par),
    unique (book, account_id, request_id),
    foreign key (book, account_id) references e_account (book, id),
    check ((state = 'closed') = (closed_at is not null))
);
