-- Payments to merchants from people's electronic accounts, and what is given back of them.

-- Given back to a person while the account that had paid could not take it; owned by that account.
insert into ledger_account_kind (kind, side, floor)
select 'e_account_returned', 'credit', 0
  from deployment
 where deployment.licence <> 'aggregator';

-- What a person pays by scanning codes, by how strongly it was confirmed. For payment accounts the
-- daily lines of 43号 are the same figures over all that goes out, and so are the narrower ones.
insert into limit_rule (kind, meter, period, currency, valid_from, most, instrument) values
    ('bank_account_1', 'code_one', 'day', 'CNY', '2018-04-01', 100000,
        '银发〔2017〕296号 条码支付业务规范（试行）：C级，不足两类要素，同一客户单日累计1000元'),
    ('bank_account_1', 'code_two', 'day', 'CNY', '2018-04-01', 500000,
        '银发〔2017〕296号 条码支付业务规范（试行）：B级，两类要素但无证书或电子签名，同一客户单日累计5000元'),
    ('bank_account_2', 'code_one', 'day', 'CNY', '2018-04-01', 100000,
        '银发〔2017〕296号 条码支付业务规范（试行）：C级，不足两类要素，同一客户单日累计1000元'),
    ('bank_account_2', 'code_two', 'day', 'CNY', '2018-04-01', 500000,
        '银发〔2017〕296号 条码支付业务规范（试行）：B级，两类要素但无证书或电子签名，同一客户单日累计5000元'),
    ('bank_account_3', 'code_one', 'day', 'CNY', '2018-04-01', 100000,
        '银发〔2017〕296号 条码支付业务规范（试行）：C级，不足两类要素，同一客户单日累计1000元'),
    ('bank_account_3', 'code_two', 'day', 'CNY', '2018-04-01', 500000,
        '银发〔2017〕296号 条码支付业务规范（试行）：B级，两类要素但无证书或电子签名，同一客户单日累计5000元');
insert into limit_meter (book, owner_id, kind, meter, currency, day, day_used, year, year_used,
                         used)
select known.book, known.owner_id, known.kind, more.meter, known.currency, known.day, 0,
       known.year, 0, 0
  from limit_meter known, (values ('code_one'), ('code_two')) as more (meter)
 where known.meter = 'out_all';

-- One payment by one account, as its person has seen it. It is written with the money.
create table e_account_payment (
    book         int not null references ledger_book (book),
    payment_id   uuid not null,
    account_id   uuid not null,
    person_id    uuid not null,
    merchant_id  uuid not null references merchant (id),
    mode         text not null check (mode in ('live', 'sandbox')),
    payee        text not null check (payee <> ''),
    subject      text not null,
    amount       bigint not null check (amount > 0),
    currency     text not null check (currency ~ '^[A-Z]{3}$'),
    level        int not null check (level between 0 and 3),
    paid_at      timestamptz not null,
    primary key (book, payment_id),
    foreign key (book, account_id) references e_account (book, id)
);
create index e_account_payment_of on e_account_payment (book, account_id, paid_at, payment_id);

-- What a merchant gave back of one: in the account again, or waiting until its person takes it.
create table e_account_refund (
    book         int not null references ledger_book (book),
    refund_id    uuid not null,
    payment_id   uuid not null,
    account_id   uuid not null,
    person_id    uuid not null,
    merchant_id  uuid not null references merchant (id),
    mode         text not null check (mode in ('live', 'sandbox')),
    amount       bigint not null check (amount > 0),
    currency     text not null check (currency ~ '^[A-Z]{3}$'),
    state        text not null check (state in ('landed', 'waiting', 'taken')),
    code         text check (code <> ''),
    made_at      timestamptz not null,
    taken_at     timestamptz,
    taken_to     uuid,
    primary key (book, refund_id),
    foreign key (book, payment_id) references e_account_payment (book, payment_id),
    check ((state = 'landed') = (code is null)),
    check ((state = 'taken') = (taken_at is not null)),
    check ((state = 'taken') = (taken_to is not null))
);
create index e_account_refund_of on e_account_refund (book, payment_id);
create index e_account_refund_waiting on e_account_refund (book, person_id, made_at, refund_id)
    where state = 'waiting';
