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
