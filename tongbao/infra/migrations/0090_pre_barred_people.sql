-- People whom the police confirmed to have rented, lent, sold or faked accounts (银发〔2019〕85号): no
-- new account, no card, and nothing moved without the counter, until a day.
create table person_bar (
    id              uuid primary key,
    person_id       uuid not null references person (id),
    document        text not null check (length(document) between 1 and 64),
    confirmed_on    date not null,
    ends_at         timestamptz not null,
    instrument      text not null check (instrument <> ''),
    set_by          text not null,
    set_at          timestamptz not null,
    lifted_by       text,
    lifted_at       timestamptz,
    lifted_because  text,
    check ((lifted_by is null) = (lifted_at is null)),
    check ((lifted_by is null) = (lifted_because is null))
);
create index person_bar_of on person_bar (person_id, id);

-- The moment on the row that every movement locks, so that none slips by.
alter table e_account add column barred_until timestamptz;

insert into opening_rule (kind, name, valid_from, figure, instrument) values
    ('*', 'barred_years', '2019-04-01', 5, '银发〔2019〕85号：买卖账户五年内暂停非柜面业务，不得新开账户');
