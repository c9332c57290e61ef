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
