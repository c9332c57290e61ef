-- What becomes of money that was set aside: a capture takes it, or a part of it, once; a void lets
-- it go. Each is a row with a number of its own at the channel. At most one is under way for an
-- attempt, and at most one has succeeded; what it may take is guarded on the payment's own row.

create table completion (
    book        int         not null,
    id          uuid        not null,
    payment_id  uuid        not null,
    attempt_id  uuid        not null,
    account_id  uuid        not null,
    merchant_id uuid        not null,
    mode        text        not null check (mode in ('live', 'sandbox')),
    kind        text        not null check (kind in ('capture', 'void')),
    why         text        not null check (why in ('merchant', 'expired', 'late')),
    amount      bigint      not null check (amount > 0),
    currency    text        not null,
    fee         bigint      not null check (fee between 0 and amount),
    state       text        not null
        check (state in ('requested', 'pending', 'unknown', 'succeeded', 'failed')),
    code        text,
    channel_ref text,
    channel_at  timestamptz,
    created_at  timestamptz not null,
    ended_at    timestamptz,
    queries     int         not null default 0,
    version     int         not null default 1,
    primary key (book, id),
    foreign key (book, payment_id) references payment (book, id),
    check ((ended_at is null) = (state in ('requested', 'pending', 'unknown'))),
    check (kind = 'void' or why = 'merchant'),
    check (state <> 'succeeded' or kind = 'void'
           or (channel_ref is not null and channel_at is not null))
);
create unique index completion_by_id on completion (id, book);
create index completion_of_payment on completion (book, payment_id, id);
create unique index completion_under_way on completion (attempt_id, book) where ended_at is null;
create unique index completion_succeeded on completion (attempt_id, book)
    where state = 'succeeded';
-- What was set aside too late is let go once.
create unique index completion_late on completion (attempt_id, book) where why = 'late';
-- One trade of a channel is one capture only. The channel's number is unique at its account.
create unique index completion_channel_ref on completion (channel_ref, account_id, book)
    where channel_ref is not null and kind = 'capture';
