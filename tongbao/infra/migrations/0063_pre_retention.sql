-- How long what channels said, and were told, is kept as it was. Afterwards its digest stays.

create table retention_term (
    kind        text not null check (kind <> ''),
    valid_from  date not null,
    days        int not null check (days between 30 and 36600),
    because     text not null check (because <> ''),
    primary key (kind, valid_from)
);

-- Trade records themselves stay: they are rows of payments and of the ledger. What is kept here is
-- evidence for disputes, and holds people's data that nothing else needs.
insert into retention_term (kind, valid_from, days, because)
select kind, '2021-11-01', 1096,
       '民法典第一百八十八条：诉讼时效三年；个人信息保护法第十九条：最短必要期限'
  from unnest(array['callback', 'exchange', 'agreement_exchange', 'parking_exchange',
                    'complaint_exchange', 'payout_exchange', 'transfer_exchange']) as kind;
insert into retention_term (kind, valid_from, days, because) values
    ('refused_callback', '2017-06-01', 184,
     '网络安全法（2016）第二十一条（三）：网络日志留存不少于六个月');

-- How far each kind was gone through, by the time in its ids. Book 0: rows that have none.
create table retention_progress (
    kind       text not null,
    of_book    int not null,
    after_id   uuid not null,
    erased     bigint not null check (erased >= 0),
    looked_at  timestamptz not null,
    primary key (kind, of_book)
);

-- What else, beside the amount, makes an act of a person's ask for more proof. `within_h` 0: time
-- does not matter. The strongest row that fires counts; of one signal that of the highest amount.
create table step_up_signal (
    signal      text not null check (signal in ('new_device', 'new_payee', 'failures', 'changed')),
    kind        text not null check (kind ~ '^[a-z_.]{1,64}$'),
    currency    text not null check (currency ~ '^[A-Z]{3}$|^$'),
    at_least    bigint not null check (at_least >= 0),
    within_h    int not null check (within_h between 0 and 8784),
    level       int not null check (level between 1 and 3),
    valid_from  date not null,
    because     text not null check (because <> ''),
    primary key (signal, kind, currency, at_least, valid_from)
);
insert into step_up_signal (signal, kind, currency, at_least, within_h, level, valid_from, because)
select signal, kind, currency, at_least, within_h, level, '2026-01-01', '本平台设定'
  from (values ('new_device', 'transfer', 'CNY', 20000, 72, 2),
               ('new_device', 'payment', 'CNY', 20000, 72, 2),
               ('new_payee', 'transfer', 'CNY', 50000, 0, 2),
               ('failures', 'transfer', 'CNY', 0, 24, 2),
               ('failures', 'transfer', 'CNY', 100001, 24, 3),
               ('failures', 'payment', 'CNY', 20000, 24, 2),
               ('failures', 'personal', '', 0, 24, 2),
               ('changed', 'transfer', 'CNY', 0, 72, 2),
               ('changed', 'transfer', 'CNY', 100001, 24, 3),
               ('changed', 'payment', 'CNY', 20000, 72, 2),
               ('changed', 'personal', '', 0, 72, 2))
    as each (signal, kind, currency, at_least, within_h, level);

-- Why an act was let through, or asked for more: one row per act and level.
create table step_up_decision (
    owner_id    uuid not null,
    act_digest  bytea not null check (length(act_digest) = 32),
    level       int not null check (level between 0 and 3),
    kind        text not null,
    device_id   uuid not null,
    reasons     text[] not null,
    times       int not null check (times > 0),
    first_at    timestamptz not null,
    last_at     timestamptz not null,
    primary key (owner_id, act_digest, level)
);
create index step_up_decision_by_end on step_up_decision (last_at);

-- Whom somebody has confirmed to before: SHA-256 of owner and payee, for as long as the account is.
create table step_up_payee (
    owner_id  uuid not null,
    payee     bytea not null check (length(payee) = 32),
    primary key (owner_id, payee)
);
-- Lists of revoked certificates of authorities between an anchor and its clients.
create table revocation_list (
    authority  bytea primary key check (length(authority) = 32),  -- SHA-256 of its certificate
    anchor_id  uuid not null references certificate_anchor (id),
    crl_der    bytea not null,
    crl_until  timestamptz not null,
    added_at   timestamptz not null,
    added_by   text not null check (added_by <> '')
);

-- The version of the API that an endpoint's events are in. Endpoints of before hear today's form.
alter table webhook_endpoint
    add column api_version text check (api_version ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$');

create index confirmation_of on confirmation (owner_id, created_at);
