-- Bank cards that people bind, and the money that goes between them and electronic accounts.

insert into ledger_account_kind (kind, side, floor)
select 'e_account_leaving', 'credit', 0
  from deployment
 where deployment.licence <> 'aggregator';

-- What binding asks for, beside the rules of opening.
insert into opening_rule (kind, name, valid_from, figure, instrument) values
    ('bound_card', 'real_name_level_min', '2016-07-01', 1,
        '中国人民银行公告〔2015〕第43号 第十条：支付账户与本人同名银行账户绑定'),
    ('bound_card', 'cards_max', '2026-01-01', 10, '本平台设定'),
    ('bound_card', 'tries_per_person_day_max', '2026-01-01', 5, '本平台设定：防范批量盗绑'),
    ('bound_card', 'tries_per_device_day_max', '2026-01-01', 5, '本平台设定：防范批量盗绑'),
    ('bound_card', 'tries_per_card_day_max', '2026-01-01', 3, '本平台设定：防范撞库'),
    ('bound_card', 'persons_per_device_max', '2026-01-01', 2, '本平台设定：防范批量冒名绑卡'),
    ('bound_card', 'persons_per_card_max', '2026-01-01', 1, '本平台设定：一张卡只属于一个人'),
    ('bound_card', 'persons_per_phone_max', '2016-12-01', 1,
        '银发〔2016〕261号（七）：一个手机号码对应一个身份证件');

-- Whoever binds locks the rows of the person, the device, the card and the phone, then counts.
create table card_binder (
    subject  uuid not null primary key
);

-- One try to bind a card, and what became of it. The number is in the vault only; `par` is the same
-- for the card whoever names it, `phone_mark` for the phone. `in_use` counts orders on their way.
create table bound_card (
    id             uuid not null primary key,
    person_id      uuid not null,
    mode           text not null check (mode in ('live', 'sandbox')),
    vault_card_id  uuid not null,
    par            text not null check (par ~ '^[0-9A-Z]{29}$'),
    bin            text not null check (bin ~ '^[0-9]{6}$'),
    last4          text not null check (last4 ~ '^[0-9]{4}$'),
    issuer         text not null,
    brand          text not null check (brand <> ''),
    kind           text not null check (kind in ('DC', 'CC', 'SCC', 'PC')),
    account_class  int check (account_class in (1, 2, 3)),
    phone_masked   text not null check (phone_masked <> ''),
    phone_mark     bytea not null check (length(phone_mark) = 32),
    device         uuid not null,
    state          text not null check (state in
        ('asked', 'unclear', 'refused', 'verified', 'bound', 'unbound')),
    reference      text not null,
    is_default     bool not null,
    in_use         int not null check (in_use >= 0),
    asked_at       timestamptz not null,
    answered_at    timestamptz,
    bound_at       timestamptz,
    ended_at       timestamptz,
    check (state = 'bound' or not is_default),
    check (state = 'bound' or in_use = 0),
    check ((state in ('bound', 'unbound')) = (bound_at is not null)),
    check ((state = 'unbound') = (ended_at is not null))
);
create unique index bound_card_once on bound_card (person_id, mode, vault_card_id)
    where state = 'bound';
create unique index bound_card_default on bound_card (person_id, mode) where is_default;
create index bound_card_of on bound_card (person_id, id);
create index bound_card_waits on bound_card (asked_at) where state in ('asked', 'verified');
create index bound_card_on_device on bound_card (device, asked_at);
create index bound_card_by_par on bound_card (par, asked_at);
create index bound_card_by_phone on bound_card (phone_mark);

-- An order that goes over a bank: which card, over which account of ours, and how far it has come.
-- `sends`: 0 nothing was sent; of a top-up 1: it was asked for, 2: it is being taken back.
alter table e_account_order add column card_id uuid;
create table e_account_leg (
    book         int not null references ledger_book (book),
    order_id     uuid not null,
    card_id      uuid not null,
    rail_id      uuid not null,
    is_own       bool not null,
    sends        int not null check (sends >= 0),
    sent_at      timestamptz,
    asks         int not null check (asks >= 0),
    reference    text not null,
    primary key (book, order_id),
    foreign key (book, order_id) references e_account_order (book, id)
);
