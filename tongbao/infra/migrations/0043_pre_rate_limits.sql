-- How much a merchant, or one of its keys, may ask in a second and in a day. Where there is no
-- limit of its own, the settings say it. A bucket is what every process takes its share from.

create table agreed_rate (
    subject        uuid not null,               -- a merchant or an API key
    mode           text not null check (mode in ('live', 'sandbox')),
    units_per_s    int not null check (units_per_s between 1 and 1000000),
    burst          int not null check (burst between 1 and 10000000),
    units_per_day  bigint check (units_per_day > 0),
    set_at         timestamptz not null,
    set_by         text not null check (set_by <> ''),
    primary key (subject, mode)
);

create table rate_bucket (
    subject      uuid not null,
    mode         text not null check (mode in ('live', 'sandbox')),
    spent_until  timestamptz not null,          -- when all that was given out has flowed back
    day          date not null,
    used         bigint not null check (used >= 0),
    primary key (subject, mode)
);
