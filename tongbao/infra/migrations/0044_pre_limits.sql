-- Legal limits: what the law lets a person move in a day, a year or a life, and the meters of it.

-- What counts from a day on. `most` null: from that day on there is no such limit. The newest row
-- that has begun counts. Amounts are minor units.
create table limit_rule (
    kind        text not null check (kind ~ '^[a-z_0-9]{1,64}$'),
    meter       text not null check (meter ~ '^[a-z_]{1,32}$'),
    period      text not null check (period in ('day', 'year', 'lifetime', 'moment')),
    currency    text not null check (currency ~ '^[A-Z]{3}$'),
    valid_from  date not null,
    most        bigint check (most >= 0),
    instrument  text not null check (instrument <> ''),
    primary key (kind, meter, period, currency, valid_from)
);
insert into limit_rule (kind, meter, period, currency, valid_from, most, instrument) values
    ('payment_account_1', 'out_all', 'lifetime', 'CNY', '2016-07-01', 100000,
        '中国人民银行公告〔2015〕第43号 第十一条：Ⅰ类支付账户，余额付款自开立起累计1000元（含转账至本人同名银行账户）'),
    ('payment_account_2', 'out_others', 'year', 'CNY', '2016-07-01', 10000000,
        '中国人民银行公告〔2015〕第43号 第十一条：Ⅱ类支付账户，余额付款年累计10万元（不含转账至本人同名银行账户）'),
    ('payment_account_3', 'out_others', 'year', 'CNY', '2016-07-01', 20000000,
        '中国人民银行公告〔2015〕第43号 第十一条：Ⅲ类支付账户，余额付款年累计20万元（不含转账至本人同名银行账户）'),
    ('payment_account_1', 'weak_one', 'day', 'CNY', '2016-07-01', 100000,
        '中国人民银行公告〔2015〕第43号 第二十四条：不足两类要素，单日累计1000元'),
    ('payment_account_1', 'weak_two', 'day', 'CNY', '2016-07-01', 500000,
        '中国人民银行公告〔2015〕第43号 第二十四条：两类要素但无证书或电子签名，单日累计5000元'),
    ('payment_account_2', 'weak_one', 'day', 'CNY', '2016-07-01', 100000,
        '中国人民银行公告〔2015〕第43号 第二十四条：不足两类要素，单日累计1000元'),
    ('payment_account_2', 'weak_two', 'day', 'CNY', '2016-07-01', 500000,
        '中国人民银行公告〔2015〕第43号 第二十四条：两类要素但无证书或电子签名，单日累计5000元'),
    ('payment_account_3', 'weak_one', 'day', 'CNY', '2016-07-01', 100000,
        '中国人民银行公告〔2015〕第43号 第二十四条：不足两类要素，单日累计1000元'),
    ('payment_account_3', 'weak_two', 'day', 'CNY', '2016-07-01', 500000,
        '中国人民银行公告〔2015〕第43号 第二十四条：两类要素但无证书或电子签名，单日累计5000元'),
    ('bank_account_2', 'in_others', 'day', 'CNY', '2016-12-01', 1000000,
        '银发〔2016〕302号、银发〔2018〕16号：Ⅱ类户，非绑定账户转入日累计1万元'),
    ('bank_account_2', 'in_others', 'year', 'CNY', '2016-12-01', 20000000,
        '银发〔2016〕302号、银发〔2018〕16号：Ⅱ类户，非绑定账户转入年累计20万元'),
    ('bank_account_2', 'out_others', 'day', 'CNY', '2016-12-01', 1000000,
        '银发〔2016〕302号、银发〔2018〕16号：Ⅱ类户，消费及向非绑定账户转出日累计1万元'),
    ('bank_account_2', 'out_others', 'year', 'CNY', '2016-12-01', 20000000,
        '银发〔2016〕302号、银发〔2018〕16号：Ⅱ类户，消费及向非绑定账户转出年累计20万元'),
    ('bank_account_3', 'balance', 'moment', 'CNY', '2018-01-10', 200000,
        '银发〔2018〕16号：Ⅲ类户，任一时点余额2000元'),
    ('bank_account_3', 'in_others', 'day', 'CNY', '2018-01-10', 200000,
        '银发〔2018〕16号：Ⅲ类户，日累计2000元'),
    ('bank_account_3', 'in_others', 'year', 'CNY', '2018-01-10', 5000000,
        '银发〔2018〕16号：Ⅲ类户，年累计5万元'),
    ('bank_account_3', 'out_others', 'day', 'CNY', '2018-01-10', 200000,
        '银发〔2018〕16号：Ⅲ类户，日累计2000元'),
    ('bank_account_3', 'out_others', 'year', 'CNY', '2018-01-10', 5000000,
        '银发〔2018〕16号：Ⅲ类户，年累计5万元');

-- What one owner has moved, over everything of a kind that is theirs. Days and years are those of
-- Asia/Shanghai and only ever go on: what commits late counts to the day that has begun.
create table limit_meter (
    book       int not null references ledger_book (book),
    owner_id   uuid not null,
    kind       text not null,
    meter      text not null,
    currency   text not null,
    day        date not null,
    day_used   bigint not null check (day_used >= 0),
    year       int not null,
    year_used  bigint not null check (year_used >= 0),
    used       bigint not null check (used >= 0),
    primary key (book, owner_id, kind, meter, currency)
);
