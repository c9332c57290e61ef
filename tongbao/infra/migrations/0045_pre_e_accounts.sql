-- Electronic accounts of people: classes I to III of a bank and of a payment institution.

insert into ledger_account_kind (kind, side, floor)
select 'e_account', 'credit', 0
  from deployment
 where deployment.licence <> 'aggregator';

-- What opening asks for and how many there may be, from a day on, and who says so. Kind '*': every.
create table opening_rule (
    kind        text not null check (kind ~ '^([a-z_0-9]{1,64}|[*])$'),
    name        text not null check (name ~ '^[a-z_]{1,64}$'),
    valid_from  date not null,
    figure      int not null check (figure >= 0),
    instrument  text not null check (instrument <> ''),
    primary key (kind, name, valid_from)
);
insert into opening_rule (kind, name, valid_from, figure, instrument) values
    ('payment_account_1', 'real_name_level_min', '2016-07-01', 1,
        '中国人民银行公告〔2015〕第43号 第十一条'),
    ('payment_account_2', 'real_name_level_min', '2016-07-01', 2,
        '中国人民银行公告〔2015〕第43号 第十一条'),
    ('payment_account_3', 'real_name_level_min', '2016-07-01', 3,
        '中国人民银行公告〔2015〕第43号 第十一条'),
    ('bank_account_1', 'face_to_face', '2016-12-01', 1, '银发〔2016〕302号；本平台设定：Ⅰ类户须面核'),
    ('bank_account_2', 'real_name_level_min', '2016-12-01', 2, '本平台设定'),
    ('bank_account_3', 'real_name_level_min', '2016-12-01', 1, '本平台设定'),
    ('payment_account_1', 'accounts_max', '2016-12-01', 1, '本平台设定'),
    ('payment_account_2', 'accounts_max', '2016-12-01', 1, '本平台设定'),
    ('payment_account_3', 'accounts_max', '2016-12-01', 1,
        '银发〔2016〕261号：同一人在同一支付机构只能开立一个Ⅲ类账户'),
    ('bank_account_1', 'accounts_max', '2016-12-01', 1,
        '银发〔2016〕261号：同一人在同一银行只能开立一个Ⅰ类户'),
    ('bank_account_2', 'accounts_max', '2018-01-10', 5, '本平台设定'),
    ('bank_account_3', 'accounts_max', '2018-01-10', 5, '本平台设定'),
    ('*', 'persons_per_device_max', '2026-01-01', 2, '本平台设定：防范批量冒名开户'),
    ('*', 'openings_per_device_day_max', '2026-01-01', 3, '本平台设定：防范批量冒名开户'),
    ('*', 'openings_per_person_day_max', '2026-01-01', 3, '本平台设定：防范批量冒名开户'),
    ('*', 'hours_after_closing', '2026-01-01', 24, '本平台设定：同类账户销户后的冷静期'),
    ('*', 'dormant_after_months', '2016-12-01', 6,
        '银发〔2016〕261号：开户之日起六个月内无交易，暂停业务，重新核实身份后恢复');

-- Whoever opens an account locks the row of themselves and that of the phone first, then counts.
create table e_account_opener (
    book     int not null references ledger_book (book),
    subject  uuid not null,
    primary key (book, subject)
);

-- `balance` is what the ledger holds, kept on the row that every movement locks, so that closing
-- sees the last one. `in_stops` and `out_stops` count the freezes that stand.
create table e_account (
    book          int not null references ledger_book (book),
    id            uuid not null,
    person_id     uuid not null,
    mode          text not null check (mode in ('live', 'sandbox')),
    kind          text not null check (kind ~ '^(bank|payment)_account_[123]$'),
    currency      text not null check (currency ~ '^[A-Z]{3}$'),
    state         text not null check (state in ('opened', 'active', 'dormant', 'closed')),
    balance       bigint not null check (balance >= 0),
    in_stops      int not null check (in_stops >= 0),
    out_stops     int not null check (out_stops >= 0),
    device        uuid not null,
    opened_at     timestamptz not null,
    activated_at  timestamptz,
    moved_at      timestamptz,
    dormant_at    timestamptz,
    closed_at     timestamptz,
    primary key (book, id),
    check (state <> 'closed' or (balance = 0 and closed_at is not null))
);
create index e_account_of on e_account (book, person_id, id);
create index e_account_on_device on e_account (book, device, opened_at);
create index e_account_quiet on e_account (book, opened_at)
    where moved_at is null and state in ('opened', 'active');

create table e_account_freeze (
    book         int not null references ledger_book (book),
    id           uuid not null,
    account_id   uuid not null,
    kind         text not null check (kind in ('operational', 'judicial')),
    direction    text not null check (direction in ('in', 'out', 'all')),
    document     text not null check (length(document) between 1 and 64),
    reason       text not null check (reason <> ''),
    set_by       text not null check (set_by <> ''),
    set_at       timestamptz not null,
    lifted_by    text,
    lifted_at    timestamptz,
    lifted_because text,
    primary key (book, id),
    foreign key (book, account_id) references e_account (book, id),
    check ((lifted_at is null) = (lifted_by is null))
);
create index e_account_freeze_of on e_account_freeze (book, account_id, id);

-- What a person ordered: done in one commit with its money, or waiting for its time. `level` is how
-- strongly it was confirmed.
create table e_account_order (
    book        int not null references ledger_book (book),
    id          uuid not null,
    account_id  uuid not null,
    person_id   uuid not null,
    mode        text not null check (mode in ('live', 'sandbox')),
    kind        text not null check (kind in ('top_up', 'withdrawal', 'transfer')),
    payee_id    uuid,
    amount      bigint not null check (amount > 0),
    currency    text not null check (currency ~ '^[A-Z]{3}$'),
    request_id  text not null check (length(request_id) between 1 and 64),
    timing      text not null check (timing in ('now', 'next_day', 'scheduled')),
    run_at      timestamptz not null,
    level       int not null check (level between 0 and 3),
    state       text not null check (state in ('waiting', 'done', 'failed', 'cancelled')),
    code        text,
    made_at     timestamptz not null,
    ended_at    timestamptz,
    primary key (book, id),
    unique (book, account_id, request_id),
    foreign key (book, account_id) references e_account (book, id),
    check ((kind = 'transfer') = (payee_id is not null)),
    check ((state = 'waiting') = (ended_at is null))
);
create index e_account_order_of on e_account_order (book, account_id, id);
