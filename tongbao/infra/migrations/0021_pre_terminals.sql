-- Terminals: the machines on merchants' counters, where they stand, what they are told to do, what
-- they may take, and what they have heard.

-- One file of serial numbers that was read; the same file is not read twice.
create table terminal_batch (
    id           uuid        not null primary key,
    name         text        not null check (length(name) between 1 and 64),
    model        text        not null check (length(model) between 1 and 64),
    digest       bytea       not null unique check (length(digest) = 32),
    terminals    int         not null check (terminals > 0),
    imported_at  timestamptz not null,
    imported_by  text        not null
);

-- Parameters for every terminal that follows it; each version stays in terminal_template_version.
create table terminal_template (
    id          uuid        not null primary key,
    name        text        not null unique check (length(name) between 1 and 64),
    version     int         not null check (version > 0),
    parameters  jsonb       not null,
    changed_at  timestamptz not null
);
create table terminal_template_version (
    template_id uuid        not null references terminal_template (id),
    version     int         not null check (version > 0),
    parameters  jsonb       not null,
    why         text        not null,
    made_at     timestamptz not null,
    made_by     text        not null,
    primary key (template_id, version)
);

create table terminal (
    id                 uuid        not null primary key,
    serial_number      text        not null unique check
        (serial_number ~ '^[A-Z0-9-]{4,32}$'),
    model              text        not null,
    batch_id           uuid        not null references terminal_batch (id),
    state              text        not null check (state in
        ('stock', 'bound', 'suspended', 'retired', 'stolen')),
    merchant_id        uuid,
    mode               text        check (mode in ('live', 'sandbox')),
    name               text        not null check (length(name) <= 64),
    store_id           uuid,
    plate_id           uuid,
    template_id        uuid        references terminal_template (id),
    own_parameters     jsonb       not null,
    parameters_version int         not null check (parameters_version >= 0), -- what it should run
    -- The terminal's secret, and how often it was given a new one.
    key_sealed         bytea,
    key_number         int         not null check (key_number >= 0),
    code_hash          bytea       check (length(code_hash) = 32),
    code_expires_at    timestamptz,
    code_misses        int         not null check (code_misses >= 0),
    changed_at         timestamptz not null,
    check ((state in ('bound', 'suspended')) = (merchant_id is not null)),
    check ((merchant_id is null) = (mode is null)),
    check ((code_hash is null) = (code_expires_at is null)),
    check (merchant_id is not null or (key_sealed is null and code_hash is null
        and plate_id is null and store_id is null))
);
create index terminal_of_merchant on terminal (merchant_id, mode, id) where merchant_id is not null;
create index terminal_of_plate on terminal (plate_id) where plate_id is not null;
create index terminal_of_template on terminal (template_id) where template_id is not null;

-- Where a terminal has stood; the row without an end is where it stands.
create table terminal_binding (
    id           uuid        not null primary key,
    terminal_id  uuid        not null references terminal (id),
    merchant_id  uuid        not null,
    mode         text        not null check (mode in ('live', 'sandbox')),
    name         text        not null,
    store_id     uuid,
    plate_id     uuid,
    bound_at     timestamptz not null,
    bound_by     text        not null,
    ended_at     timestamptz,
    ended_by     text,
    why          text        not null,
    check ((ended_at is null) = (ended_by is null)),
    check (ended_at >= bound_at)
);
create unique index terminal_bound_once on terminal_binding (terminal_id) where ended_at is null;
create index terminal_binding_of on terminal_binding (terminal_id, id);

create table terminal_parameter_version (
    terminal_id       uuid        not null references terminal (id),
    version           int         not null check (version > 0),
    template_version  int,
    own               jsonb       not null,
    effective         jsonb       not null,
    why               text        not null,
    made_at           timestamptz not null,
    made_by           text        not null,
    primary key (terminal_id, version)
);

-- Written all the time and for many at once, so no index but the key: every update stays in its
-- page, which is kept half empty for that.
create table terminal_heartbeat (
    terminal_id         uuid        not null primary key references terminal (id),
    seen_at             timestamptz not null,       -- business time
    signed_at           bigint      not null,       -- real time, as the terminal signed it
    firmware            text        not null check (length(firmware) <= 64),
    battery             int         check (battery between 0 and 100),
    signal              int         check (signal between 0 and 100),
    parameters_version  int         not null,       -- what it runs
    heard               bigint      not null,       -- the last notice it has told
    is_offline          boolean     not null
) with (fillfactor = 50);

-- The counter's row is locked until the notice is committed, so whoever has read up to a number has
-- read every one before it.
create table terminal_feed (
    terminal_id  uuid   not null primary key references terminal (id),
    last_seq     bigint not null check (last_seq >= 0)
) with (fillfactor = 70);
create table terminal_notice (
    terminal_id  uuid        not null references terminal (id),
    seq          bigint      not null check (seq > 0),
    merchant_id  uuid        not null, -- who had the terminal then; nobody else hears it
    mode         text        not null check (mode in ('live', 'sandbox')),
    event_id     uuid        not null,
    body         jsonb       not null,
    at           timestamptz not null,
    primary key (terminal_id, seq),
    unique (terminal_id, event_id)
);
create index terminal_notice_by_time on terminal_notice (at);

-- What a terminal may take and has taken on a day: the merchant's own limits, and the platform's
-- caps over them. Money in another currency counts by number only, and not at all beside a limit.
create table terminal_meter (
    book          int    not null,
    terminal_id   uuid   not null,
    currency      text   not null check (currency ~ '^[A-Z]{3}$'),
    limit_each    bigint check (limit_each > 0),
    limit_count   int    check (limit_count > 0),
    limit_amount  bigint check (limit_amount > 0),
    cap_each      bigint check (cap_each > 0),
    cap_count     int    check (cap_count > 0),
    cap_amount    bigint check (cap_amount > 0),
    used_on       date   not null,
    used_count    int    not null check (used_count >= 0),
    used_amount   bigint not null check (used_amount >= 0),
    since         timestamptz not null, -- when its merchant got it: what was counted before is over
    primary key (book, terminal_id)
) with (fillfactor = 70);

create table terminal_use (
    book         int         not null,
    payment_id   uuid        not null,
    terminal_id  uuid        not null,
    amount       bigint      not null check (amount >= 0), -- as it was counted
    used_on      date        not null,
    at           timestamptz not null,
    released_at  timestamptz,
    primary key (book, payment_id),
    foreign key (book, terminal_id) references terminal_meter (book, terminal_id)
);
