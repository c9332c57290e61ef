-- Reconciliation at scale. Of a lean bill the rows that agreed are counted and not kept.
alter table bill_file add column is_lean boolean not null default false;

-- Statements of anybody, read by layouts that are data. What a layout says stays with its source.
create table source (
    name     text        not null primary key check (name ~ '^[a-z0-9][a-z0-9_.]{1,63}$'),
    mode     text        not null check (mode in ('live', 'sandbox')),
    layout   text        not null,
    added_by text        not null,
    added_at timestamptz not null
);

create table source_file (
    id          uuid        not null primary key,
    source      text        not null references source (name),
    day         date        not null,
    version     int         not null check (version > 0),
    sha256      text        not null,
    size        bigint      not null check (size >= 0),
    state       text        not null check (state in
        ('reading', 'complete', 'refused', 'superseded')),
    code        text        not null, -- why it was refused
    row_count   int         not null check (row_count >= 0),
    fault_count int         not null check (fault_count >= 0),
    money_in    bigint      not null check (money_in >= 0),
    money_out   bigint      not null check (money_out >= 0),
    fees        bigint      not null,
    currency    text        not null check (currency ~ '^[A-Z]{3}$'),
    taken_by    text        not null,
    began_at    timestamptz not null,
    ended_at    timestamptz,
    unique (source, sha256),
    unique (source, day, version),
    check ((ended_at is null) = (state = 'reading')),
    check ((code <> '') = (state = 'refused'))
);
create unique index source_file_current on source_file (source, day) where state = 'complete';

-- A stretch of a file's rows and faults that was committed as one. Whoever reads on after a crash
-- reads the file from its beginning and finds the same digest for every chunk that is there.
create table source_chunk (
    file_id   uuid not null references source_file (id),
    place     int  not null check (place >= 0),
    first_row int  not null check (first_row >= 0),
    row_count int  not null check (row_count > 0),
    sha256    text not null,
    primary key (file_id, place)
);

create table source_row (
    file_id  uuid        not null,
    place    int         not null,
    line     int         not null,
    kind     text        not null,
    number   text        not null,
    ref      text        not null,
    batch    text        not null,
    amount   bigint      not null,
    fee      bigint      not null,
    currency text        not null,
    at       timestamptz not null,
    state    text        not null,
    primary key (file_id, place)
);
create index source_row_number on source_row (number);

create table source_line_fault (
    file_id uuid not null,
    place   int  not null,
    line    int  not null,
    code    text not null,
    text    text not null,
    primary key (file_id, place)
);

-- What matching two statements finds stands with the other differences: a `line` is a key of rows.
alter table recon_break
    drop constraint recon_break_kind_check,
    add constraint recon_break_kind_check
        check (kind in ('payment', 'refund', 'reversal', 'bill', 'line'));

-- Who works on a difference.
create table recon_case (
    break_id uuid        not null primary key,
    owner    text        not null,
    taken_at timestamptz not null
);

-- A day as it goes on: half a minute of an account, both sides as count, amount and digest.
create table recon_slice (
    account_id   uuid        not null,
    day          date        not null,
    place        int         not null check (place between 0 and 2879),
    our_count    int         not null check (our_count >= 0),
    our_amount   bigint      not null,
    our_fees     bigint      not null,
    our_digest   bigint      not null check (our_digest >= 0),
    is_booked    boolean     not null, -- the ledger shows every payment of it
    our_at       timestamptz,
    their_count  int         not null check (their_count >= 0),
    their_amount bigint      not null,
    their_digest bigint      not null check (their_digest >= 0),
    primary key (account_id, day, place)
);

create table slice_piece (
    account_id uuid        not null,
    day        date        not null,
    place      int         not null check (place >= 0),
    sha256     text        not null,
    line_count int         not null check (line_count >= 0),
    has_total  boolean     not null,
    taken_at   timestamptz not null,
    primary key (account_id, day, place),
    unique (account_id, day, sha256)
);
