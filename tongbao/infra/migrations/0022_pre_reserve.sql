-- Reserve funds (备付金): customers' money beside what lies for them at banks, day by day. Only where
-- other people's money is held.
do $$
begin
    if (select licence from deployment where id = 1) = 'aggregator' then
        return;
    end if;

    create table custody_account (
        id              uuid        not null primary key,
        mode            text        not null check (mode in ('live', 'sandbox')),
        currency        text        not null check (currency ~ '^[A-Z]{3}$'),
        purpose         text        not null check (purpose in ('customers', 'own')),
        bank            text        not null check (length(bank) between 1 and 128),
        account_masked  text        not null check (length(account_masked) between 1 and 16),
        account_mac     bytea       not null check (length(account_mac) = 32), -- the whole number
        opened_on       date        not null,
        closed_on       date,
        approved_as     text        not null, -- the approval by which it is here
        unique (mode, currency, account_mac),
        check (closed_on >= opened_on)
    );

    -- What a bank says an account closed a day with. The highest version counts; the same paper
    -- twice is one.
    create table custody_balance (
        account_id   uuid        not null references custody_account (id),
        day          date        not null,
        version      int         not null check (version > 0),
        amount       bigint      not null,
        source       text        not null check (source in
            ('camt.053', 'mt940', 'bank_transfer', 'manual')),
        reference    text        not null check (length(reference) between 1 and 200),
        digest       bytea       not null check (length(digest) = 32),
        recorded_at  timestamptz not null,
        recorded_by  text        not null,
        primary key (account_id, day, version),
        unique (account_id, day, digest)
    );

    -- How much of customers' money must be covered, from which day on, and who says so.
    create table reserve_rule (
        valid_from   date not null primary key,
        ratio_bp     int  not null check (ratio_bp > 0), -- hundredths of a percent
        instrument   text not null,
        article      text not null
    );
    insert into reserve_rule (valid_from, ratio_bp, instrument, article) values
        ('2013-06-07', 10000, '支付机构客户备付金存管办法（中国人民银行公告〔2013〕第6号）', '第三条'),
        ('2021-03-01', 10000, '非银行支付机构客户备付金存管办法（中国人民银行令〔2021〕第1号）',
         '第三条');

    create table reserve_proof (
        id            uuid        not null primary key,
        mode          text        not null check (mode in ('live', 'sandbox')),
        currency      text        not null check (currency ~ '^[A-Z]{3}$'),
        day           date        not null,
        version       int         not null check (version > 0),
        state         text        not null check (state in
            ('covered', 'differs', 'short', 'incomplete')),
        owed          bigint      not null,
        required      bigint      not null,
        custody       bigint      not null,
        own_at_bank   bigint      not null,
        bank_in_books bigint      not null,
        shortfall     bigint      not null check (shortfall >= 0),
        difference    bigint      not null,
        inputs        jsonb       not null,
        digest        bytea       not null check (length(digest) = 32),
        made_at       timestamptz not null,
        made_by       text        not null,
        unique (mode, currency, day, version),
        check ((state = 'covered') <= (shortfall = 0 and difference = 0)),
        check (difference = custody + own_at_bank - bank_in_books)
    );
    create index reserve_proof_by_day on reserve_proof (mode, day);

    -- A gap stays open until two people have explained it, whatever later proofs say.
    create table reserve_gap (
        id            uuid        not null primary key,
        mode          text        not null check (mode in ('live', 'sandbox')),
        currency      text        not null,
        day           date        not null,
        kind          text        not null check (kind in
            ('short', 'differs', 'incomplete')),
        amount        bigint      not null, -- as the first proof found it
        proof_id      uuid        not null,
        opened_at     timestamptz not null,
        explained_at  timestamptz,
        explanation   text        check (length(explanation) between 4 and 500),
        explained_as  text,
        unique (mode, currency, day, kind),
        check ((explained_at is null) = (explanation is null)),
        check ((explained_at is null) = (explained_as is null))
    );
    create index reserve_gap_open on reserve_gap (opened_at) where explained_at is null;

    -- What was said and proved stays as it was.
    revoke update, delete, truncate on custody_balance, reserve_proof from current_user;
end
$$;
