-- Clearing: the channels' bills compared with what we hold (bill_file, bill_row, recon_…), each
-- merchant's day closed (settlement), and what we pay out (payout).

create index attempt_paid on attempt (account_id, paid_at)
    where paid_at is not null and channel <> 'wallet';
create index attempt_overdue on attempt (account_id)
    where state in ('created', 'pending', 'unknown');
create index refund_given_back on refund (mode, channel_at) where channel_at is not null;

-- One row per version of an account's bill of a day: another digest is another version, and the
-- earlier ones stay as they were.
create table bill_file (
    id                     uuid        not null primary key,
    account_id             uuid        not null,
    channel                text        not null,
    mode                   text        not null check (mode in ('live', 'sandbox')),
    day                    date        not null,
    version                int         not null check (version > 0),
    state                  text        not null check (state in
        ('requested', 'downloaded', 'parsed', 'incomplete', 'matched', 'empty')),
    currency               text        not null check (currency ~ '^[A-Z]{3}$'),
    requested_at           timestamptz not null,
    last_answer            text        not null, -- why the bill is not there yet
    sha256                 text,
    size                   bigint      not null check (size >= 0),
    row_count              int         not null check (row_count >= 0),
    fault_count            int         not null check (fault_count >= 0),
    payment_count          int         not null check (payment_count >= 0),
    payment_amount         bigint      not null check (payment_amount >= 0),
    refund_count           int         not null check (refund_count >= 0),
    refund_amount          bigint      not null check (refund_amount >= 0),
    fee_amount             bigint      not null, -- charged less returned
    told_row_count         int,
    told_payment_amount    bigint,
    told_refund_amount     bigint,
    told_fee_amount        bigint,
    is_complete            boolean     not null, -- it was read to its own trailer
    totals_agree           boolean     not null, -- and the trailer says what the rows say
    run_id                 uuid,                 -- the run that compares it now, or did last
    matched_count          int         not null,
    matched_payment_amount bigint      not null,
    matched_refund_amount  bigint      not null,
    break_count            int         not null,
    waiting_count          int         not null,
    downloaded_at          timestamptz,
    parsed_at              timestamptz,
    matched_at             timestamptz,
    superseded_at          timestamptz,
    unique (account_id, day, version),
    check (state not in ('matched', 'empty') or (is_complete and matched_at is not null)),
    check (state <> 'incomplete' or not is_complete),
    check (not totals_agree or is_complete)
);
create unique index bill_file_current on bill_file (account_id, day) where superseded_at is null;
create index bill_file_of_day on bill_file (day, account_id);

-- No foreign key: a bill has a million rows, all written in the commit that says they are there.
create table bill_row (
    bill_id      uuid        not null,
    line         int         not null,
    kind         text        not null check (kind in ('payment', 'refund', 'reversal')),
    number       text        not null,
    order_number text        not null,
    channel_ref  text        not null,
    amount       bigint      not null check (amount >= 0),
    currency     text        not null,
    fee          bigint      not null,
    at           timestamptz not null,
    word         text        not null, -- the channel's own word for the state
    outcome      text        not null check (outcome in ('moved', 'under_way', 'failed')),
    primary key (bill_id, line)
);
create index bill_row_number on bill_row (number);

create table bill_fault (
    bill_id uuid not null references bill_file (id),
    place   int  not null, -- in the order they were met
    line    int  not null,
    code    text not null,
    text    text not null,
    primary key (bill_id, place)
);

-- The platform's side of one run, put there to be compared and taken away afterwards.
create table recon_item (
    book         int    not null,
    run_id       uuid   not null,
    kind         text   not null check (kind in ('payment', 'refund', 'reversal')),
    number       text   not null,
    payment_id   uuid   not null,
    refund_id    uuid,
    amount       bigint not null check (amount > 0),
    currency     text   not null,
    expected_fee bigint not null,
    state        text   not null check (state in ('moved', 'open', 'not_moved')),
    to_book      bigint not null, -- what the ledger should show on the channel's account
    booked       bigint,          -- what it shows; none where no ledger is kept
    from_day     date   not null, -- the days on whose bills it may stand
    to_day       date   not null,
    primary key (book, run_id, kind, number)
);

create table recon_break (
    id              uuid        not null primary key,
    account_id      uuid        not null,
    channel         text        not null,
    mode            text        not null check (mode in ('live', 'sandbox')),
    day             date        not null,
    kind            text        not null check (kind in ('payment', 'refund', 'reversal', 'bill')),
    number          text        not null,
    break_class     text        not null check (break_class in
        ('missing_at_platform', 'missing_at_channel', 'amount_differs', 'fee_differs',
         'state_differs', 'duplicated_at_channel', 'ledger_differs', 'cut_off',
         'totals_differ')),
    currency        text        not null,
    bill_amount     bigint,
    platform_amount bigint,
    ledger_amount   bigint,
    bill_fee        bigint,
    expected_fee    bigint,
    difference      bigint      not null, -- the money in question: the bill's side less ours
    payment_id      uuid,
    refund_id       uuid,
    line            int,                  -- of the bill
    bill_id         uuid        not null references bill_file (id),
    run_id          uuid        not null, -- the last run that saw it
    state           text        not null check (state in ('open', 'closed', 'gone')),
    found_at        timestamptz not null,
    seen_at         timestamptz not null,
    reopened        int         not null check (reopened >= 0),
    proposal        text,
    proposed_by     text,
    proposed_at     timestamptz,
    closed_by       text,
    closed_at       timestamptz,
    unique (account_id, day, kind, number, break_class),
    check ((proposal is null) = (proposed_by is null)),
    check ((proposal is null) = (proposed_at is null)),
    check ((closed_by is null) = (closed_at is null)),
    check ((closed_at is null) = (state = 'open')),
    check (state <> 'closed' or proposal is not null),
    -- Four eyes, wherever money is in question.
    check (state <> 'closed' or difference = 0 or proposed_by <> closed_by)
);
create index recon_break_open on recon_break (found_at, id) where state = 'open';
create index recon_break_of_payment on recon_break (payment_id) where payment_id is not null;

-- What stands on no bill so far and may stand on a neighbouring day's (缓冲池).
create table recon_waiting (
    account_id uuid        not null,
    day        date        not null,
    kind       text        not null check (kind in ('payment', 'refund', 'reversal')),
    number     text        not null,
    from_day   date        not null,
    to_day     date        not null,
    amount     bigint      not null,
    currency   text        not null,
    payment_id uuid        not null,
    refund_id  uuid,
    since      timestamptz not null,
    primary key (account_id, day, kind, number)
);

-- What was posted as the channel's fees of a bill's day; several when a later version differs.
create table bill_cost (
    book       int         not null,
    account_id uuid        not null,
    day        date        not null,
    entry      int         not null check (entry >= 0),
    bill_id    uuid        not null,
    amount     bigint      not null check (amount <> 0),
    currency   text        not null,
    posted_at  timestamptz not null,
    primary key (book, account_id, day, entry)
);
