-- Payment codes that a phone makes without network: the phones' secrets, the codes that have paid,
-- and how much a wallet may spend so. Only where there are wallets.
do $$
begin
    if (select licence from deployment where id = 1) = 'aggregator' then
        return;
    end if;

    -- An alias is never given out twice, so a row stays when its key is over.
    create table offline_key (
        book           int         not null,
        id             uuid        not null,
        wallet_id      uuid        not null,
        mode           text        not null check (mode in ('live', 'sandbox')),
        alias          text        not null check (alias ~ '^[0-9]{9}$'),
        device_name    text        not null check (length(device_name) between 1 and 64),
        secret_sealed  bytea       not null,
        state          text        not null check (state in ('active', 'locked', 'revoked')),
        misses         int         not null check (misses >= 0),
        created_at     timestamptz not null,
        expires_at     timestamptz not null,
        ended_at       timestamptz,
        primary key (book, id),
        unique (book, alias),
        foreign key (book, wallet_id) references wallet (book, id),
        check (created_at <= expires_at),
        check ((state = 'active') = (ended_at is null))
    ) with (fillfactor = 80);
    create index offline_key_by_wallet on offline_key (book, wallet_id, id);

    -- A row says that the key's code of this step has paid: there is one at most.
    create table offline_code (
        book     int         not null,
        key_id   uuid        not null,
        step     bigint      not null check (step > 0),
        used_at  timestamptz not null,
        used_by  uuid        not null,
        primary key (book, key_id, step),
        foreign key (book, key_id) references offline_key (book, id)
    );

    create table offline_allowance (
        book           int    not null,
        wallet_id      uuid   not null,
        limit_each     bigint not null check (limit_each > 0),
        limit_per_day  bigint not null check (limit_per_day > 0),
        spent_on       date   not null,
        spent          bigint not null check (spent >= 0),
        primary key (book, wallet_id),
        foreign key (book, wallet_id) references wallet (book, id),
        check (spent <= limit_per_day)
    ) with (fillfactor = 70);
end
$$;
