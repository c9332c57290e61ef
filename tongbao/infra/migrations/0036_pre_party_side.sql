-- The party side, finished: checkouts at terminals, card numbers' beginnings, terms of disputes
-- with how well their source is known, files of chargebacks, and pictures of complaints.

-- Where a checkout is shown. Each of its tries counts against that terminal's limits.
alter table checkout add column terminal_id uuid;

-- What card numbers begin with, as an acquirer's table says; the one that ships is in the program.
create table card_bin (
    prefix     text        not null check (prefix ~ '^\d{2,10}$'),
    length     int         not null check (length between 12 and 19),
    issuer     text        not null check (length(issuer) between 1 and 64),
    kind       text        not null check (kind in ('DC', 'CC', 'SCC', 'PC')),
    source     text        not null check (length(source) between 1 and 120),
    loaded_at  timestamptz not null,
    primary key (prefix, length)
);

-- Blobs whose bytes may lie in the store while no row names them yet. Real time, not business time.
create table blob_upload (
    name      text primary key check (length(name) between 1 and 200),
    begun_at  timestamptz not null,
    dying_at  timestamptz -- its bytes are being taken away: no row may name it any more
);
create index blob_upload_by_time on blob_upload (begun_at);

-- How good the word is that a deadline rests on. A contract's row is dated later and wins by that.
alter table dispute_term
    add column quality text not null default 'house'
        check (quality in ('contract', 'scheme', 'acquirer', 'secondary', 'house'));
update dispute_term set quality = 'acquirer' where source like 'docs.adyen.com%';
update dispute_term set quality = 'secondary'
 where source like 'paymentsandrisk.com%' or source like 'UnionPay error handling%';

-- Files in which a scheme tells of chargebacks, and what became of each of their rows. Rows take
-- effect one by one, each once; a file that died in the middle is taken again and goes on.
create table scheme_file (
    id          uuid        primary key,
    account_id  uuid        not null, -- ours at the channel that the scheme speaks to
    scheme      text        not null,
    name        text        not null check (length(name) between 1 and 200),
    sha256      text        not null check (sha256 ~ '^[0-9a-f]{64}$'),
    layout      text        not null,
    row_count   int         not null check (row_count > 0),
    taken_by    text        not null,
    began_at    timestamptz not null,
    ended_at    timestamptz, -- every row was taken
    unique (account_id, sha256)
);
create table scheme_file_row (
    file_id     uuid        not null references scheme_file (id),
    line        int         not null,
    scheme_ref  text        not null,
    trade       text        not null, -- our number of the order, or the channel's of the trade
    outcome     text        not null check (outcome in ('taken', 'not_ours', 'contradicts')),
    dispute_id  uuid,
    at          timestamptz not null,
    primary key (file_id, line),
    check ((outcome = 'taken') = (dispute_id is not null))
);
