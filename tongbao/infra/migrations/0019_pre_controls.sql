-- Four eyes: what one person proposes and another approves, and what became of it.

create table approval (
    id             uuid not null primary key,
    act            text not null check (length(act) between 1 and 64),
    subject        text not null check (length(subject) between 1 and 200),
    merchant_id    uuid,
    mode           text check (mode in ('live', 'sandbox')),
    terms          text not null check (length(terms) between 2 and 65536),
    digest         bytea not null check (length(digest) = 32),
    reason         text not null check (length(reason) between 4 and 500),
    maker          text not null check (maker <> ''),
    made_at        timestamptz not null,
    expires_at     timestamptz not null,
    state          text not null check (state in ('proposed', 'approved', 'applied', 'rejected',
                                                  'withdrawn', 'expired', 'failed')),
    checker        text,
    decided_at     timestamptz,
    note           text check (length(note) <= 500),
    ended_at       timestamptz,
    code           text,             -- failed: the refusal that stopped the effect
    superseded_by  uuid,             -- withdrawn: the proposal in whose favour
    check (expires_at > made_at),
    constraint approval_four_eyes check (checker <> maker),
    check ((state in ('approved', 'applied', 'rejected', 'failed')) = (checker is not null)),
    check ((checker is null) = (decided_at is null)),
    check ((state in ('proposed', 'approved')) = (ended_at is null)),
    check ((state = 'failed') = (code is not null)),
    check (superseded_by is null or state = 'withdrawn'),
    check (state <> 'rejected' or length(note) >= 4)
);
-- One thing changes in one way at a time.
create unique index approval_open on approval (act, subject)
    where state in ('proposed', 'approved');
create index approval_waiting on approval (id) where state in ('proposed', 'approved');
create index approval_of_subject on approval (subject, id);

-- What was proposed stays as it was: only what became of it may be written later.
revoke update, delete, truncate on approval from current_user;
grant update (state, checker, decided_at, note, ended_at, code, superseded_by)
    on approval to current_user;

-- Days on which banks work although it is a weekend, or rest although it is none. Rows are only
-- added: of a day the newest counts, and what was known at a moment can be asked for.
create table calendar_day (
    day          date not null,
    known_from   timestamptz not null,
    is_working   boolean not null,
    name         text not null check (length(name) between 1 and 40),
    source       text not null check (length(source) between 4 and 120),
    approval_id  uuid,               -- none: came with the program
    primary key (day, known_from)
);
revoke update, delete, truncate on calendar_day from current_user;

-- General Office of the State Council, 关于2025年部分节假日安排的通知 of 12 November 2024 and
-- 关于2026年部分节假日安排的通知 of 4 November 2025.
insert into calendar_day (day, known_from, is_working, name, source)
select holiday::date, told, false, name, source
  from (values
        (date '2025-01-01', date '2025-01-01',
         timestamptz '2024-11-12 00:00:00+08', '元旦', '国办发明电〔2024〕12号'),
        ('2025-01-28', '2025-02-04', '2024-11-12T00:00+08', '春节', '国办发明电〔2024〕12号'),
        ('2025-04-04', '2025-04-06', '2024-11-12T00:00+08', '清明节', '国办发明电〔2024〕12号'),
        ('2025-05-01', '2025-05-05', '2024-11-12T00:00+08', '劳动节', '国办发明电〔2024〕12号'),
        ('2025-05-31', '2025-06-02', '2024-11-12T00:00+08', '端午节', '国办发明电〔2024〕12号'),
        ('2025-10-01', '2025-10-08', '2024-11-12T00:00+08', '国庆节、中秋节', '国办发明电〔2024〕12号'),
        ('2026-01-01', '2026-01-03', '2025-11-04T00:00+08', '元旦', '国办发明电〔2025〕7号'),
        ('2026-02-15', '2026-02-23', '2025-11-04T00:00+08', '春节', '国办发明电〔2025〕7号'),
        ('2026-04-04', '2026-04-06', '2025-11-04T00:00+08', '清明节', '国办发明电〔2025〕7号'),
        ('2026-05-01', '2026-05-05', '2025-11-04T00:00+08', '劳动节', '国办发明电〔2025〕7号'),
        ('2026-06-19', '2026-06-21', '2025-11-04T00:00+08', '端午节', '国办发明电〔2025〕7号'),
        ('2026-09-25', '2026-09-27', '2025-11-04T00:00+08', '中秋节', '国办发明电〔2025〕7号'),
        ('2026-10-01', '2026-10-07', '2025-11-04T00:00+08', '国庆节', '国办发明电〔2025〕7号')
       ) as said (first, last, told, name, source),
       generate_series(first::timestamp, last::timestamp, interval '1 day') as holiday;
insert into calendar_day (day, known_from, is_working, name, source) values
    ('2025-01-26', '2024-11-12 00:00:00+08', true, '春节调休上班', '国办发明电〔2024〕12号'),
    ('2025-02-08', '2024-11-12 00:00:00+08', true, '春节调休上班', '国办发明电〔2024〕12号'),
    ('2025-04-27', '2024-11-12 00:00:00+08', true, '劳动节调休上班', '国办发明电〔2024〕12号'),
    ('2025-09-28', '2024-11-12 00:00:00+08', true, '国庆节、中秋节调休上班', '国办发明电〔2024〕12号'),
    ('2025-10-11', '2024-11-12 00:00:00+08', true, '国庆节、中秋节调休上班', '国办发明电〔2024〕12号'),
    ('2026-01-04', '2025-11-04 00:00:00+08', true, '元旦调休上班', '国办发明电〔2025〕7号'),
    ('2026-02-14', '2025-11-04 00:00:00+08', true, '春节调休上班', '国办发明电〔2025〕7号'),
    ('2026-02-28', '2025-11-04 00:00:00+08', true, '春节调休上班', '国办发明电〔2025〕7号'),
    ('2026-05-09', '2025-11-04 00:00:00+08', true, '劳动节调休上班', '国办发明电〔2025〕7号'),
    ('2026-09-20', '2025-11-04 00:00:00+08', true, '国庆节调休上班', '国办发明电〔2025〕7号'),
    ('2026-10-10', '2025-11-04 00:00:00+08', true, '国庆节调休上班', '国办发明电〔2025〕7号');

-- Until when of a business day something still belongs to it, in minutes after midnight in
-- Asia/Shanghai; of a purpose the newest row that is valid on the day counts.
create table calendar_cut_off (
    purpose      text not null check (purpose ~ '^[a-z][a-z_]{1,31}$'),
    valid_from   date not null,
    known_from   timestamptz not null,
    minute       int not null check (minute between 1 and 1440),
    source       text not null check (length(source) between 4 and 120),
    approval_id  uuid,
    primary key (purpose, valid_from, known_from)
);
revoke update, delete, truncate on calendar_cut_off from current_user;

-- Where differences go that two people gave up looking for.
insert into ledger_account_kind (kind, side, floor) values ('written_off', 'debit', null);

-- What lies in suspense, by what it came from: summed up behind the journal, up to a transfer.
create table suspense_account (
    book         int not null references ledger_book (book),
    currency     text not null,
    through_seq  bigint not null check (through_seq >= 0),
    primary key (book, currency)
);
create table suspense_item (
    book      int not null references ledger_book (book),
    currency  text not null,
    owner     uuid not null,         -- the payment, movement or adjustment it came from
    amount    bigint not null,       -- below zero: more left than came in
    code      text not null,         -- the posting that began it
    first_at  timestamptz not null,
    last_at   timestamptz not null,
    last_seq  bigint not null check (last_seq > 0),
    primary key (book, currency, owner),
    check (last_at >= first_at)
);
create index suspense_item_open on suspense_item (book, first_at, owner) where amount <> 0;

-- Late money that people will give back another way: from here on nobody sends the refund, and it
-- ends as failed once the channel says that it does not have it.
create table refund_stop (
    book       int not null references ledger_book (book),
    refund_id  uuid not null,
    asked_at   timestamptz not null,
    asked_by   text not null check (asked_by <> ''),
    primary key (book, refund_id)
);
revoke update, delete, truncate on refund_stop from current_user;
