-- The general ledger, built behind the journal, and money on its way between books.
--
-- A range is a stretch of commits that was summed up; it begins where the one before it ended, so
-- the keys below let every commit be summed exactly once: no gap, no overlap, no second beginning.
create table gl_range (
    book         int not null references ledger_book (book),
    last_batch   bigint not null,
    first_batch  bigint not null check (first_batch > 0),
    follows      bigint generated always as (nullif(first_batch - 1, 0)) stored,
    transfers    bigint not null check (transfers >= 0),  -- those that moved posted money
    made_at      timestamptz not null,
    primary key (book, last_batch),
    unique (book, first_batch),
    unique (book, first_batch, last_batch),
    foreign key (book, follows) references gl_range (book, last_batch),
    check (first_batch <= last_batch)
);

-- What a range moved on one accounting day: one voucher, which names the commits it was made from.
create table gl_voucher (
    book         int not null,
    last_batch   bigint not null,
    biz_date     date not null,
    first_batch  bigint not null,
    transfers    bigint not null check (transfers > 0),
    primary key (book, last_batch, biz_date),
    foreign key (book, first_batch, last_batch) references gl_range (book, first_batch, last_batch)
);
create index gl_voucher_by_day on gl_voucher (book, biz_date);

create table gl_voucher_line (
    book        int not null,
    last_batch  bigint not null,
    biz_date    date not null,
    currency    text not null,
    code        text not null,     -- the posting rule and leg
    account     text not null,     -- the number in the chart of the general ledger
    debits      bigint not null check (debits >= 0),
    credits     bigint not null check (credits >= 0),
    transfers   bigint not null check (transfers > 0),
    primary key (book, last_batch, biz_date, currency, code, account),
    foreign key (book, last_batch, biz_date) references gl_voucher (book, last_batch, biz_date)
);

-- The vouchers of a day, summed, so that a trial balance reads a row per day and account.
create table gl_day_total (
    book      int not null references ledger_book (book),
    biz_date  date not null,
    currency  text not null,
    account   text not null,
    debits    bigint not null check (debits >= 0),
    credits   bigint not null check (credits >= 0),
    primary key (book, biz_date, currency, account)
);
-- The foreign keys lock rows of the first two, which takes the right to update them.
revoke delete, truncate on gl_range, gl_voucher from current_user;
revoke update, delete, truncate on gl_voucher_line from current_user;

-- Closing a day, or opening it again, takes two people.
create table gl_day_request (
    book        int not null references ledger_book (book),
    id          uuid not null,
    action      text not null check (action in ('close', 'reopen')),
    day         date not null,
    reason      text not null check (length(reason) between 1 and 500),
    maker       text not null check (maker <> ''),
    made_at     timestamptz not null,
    expires_at  timestamptz not null,
    state       text not null
                check (state in ('waiting', 'approved', 'rejected', 'withdrawn', 'expired')),
    checker     text,
    decided_at  timestamptz,
    last_batch  bigint,            -- approved: the vouchers are complete up to this commit
    primary key (book, id),
    check (expires_at > made_at),
    constraint gl_day_request_four_eyes check (checker <> maker),
    check ((state in ('approved', 'rejected')) = (checker is not null)),
    check ((state = 'waiting') = (decided_at is null)),
    check ((state = 'approved') = (last_batch is not null))
);
create unique index gl_day_request_waiting on gl_day_request (book) where state = 'waiting';

-- Money between two books, kept in the payer's book, because its first leg commits with this row.
create table ledger_movement (
    book         int not null references ledger_book (book),
    id           uuid not null,     -- of the first leg's transfer
    reference    uuid not null,
    rule         text not null,     -- a family of posting rules, such as cross_book
    held         boolean not null,  -- the first leg waits until the second has happened
    currency     text not null,
    amount       bigint not null check (amount > 0),
    payer_kind   text not null,
    payer_owner  uuid not null,
    to_book      int not null,
    payee_kind   text not null,
    payee_owner  uuid not null,
    state        text not null check (state in
                     ('moving', 'arriving', 'arrived', 'returned', 'suspended', 'cancelled')),
    code         text,              -- why the payee could not take it
    made_at      timestamptz not null,
    ended_at     timestamptz,
    primary key (book, id),
    check (to_book <> book),
    check (state <> 'cancelled' or held),
    check ((state in ('moving', 'arriving')) = (ended_at is null))
);
create index ledger_movement_open on ledger_movement (book, made_at) where ended_at is null;

-- One account that is kept in several books because one is not enough: its parts, and how much
-- money each should have. A part that has less than `low` gets what it lacks to `target` from
-- parts that have more than that.
create table ledger_split (
    kind      text not null,
    owner     uuid not null,
    currency  text not null check (currency ~ '^[A-Z]{3}$'),
    books     int[] not null check (cardinality(books) between 1 and 64),
    low       bigint not null check (low >= 0),
    target    bigint not null check (target > 0),
    made_at   timestamptz not null,
    primary key (kind, owner, currency),
    check (low < target)
);
