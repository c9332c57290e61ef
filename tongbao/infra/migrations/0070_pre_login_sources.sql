-- How often somebody may fail to log in from one place on the network, whoever they say they are.

-- A place is an address (32 or 128 bits of it) or its network. `most` null: no limit from that day.
create table login_source_rule (
    entrance     text not null check (entrance in ('person', 'operator', 'staff', 'developer')),
    family       int not null check (family in (4, 6)),
    prefix_bits  int not null check
        (prefix_bits between 8 and case family when 4 then 32 else 128 end),
    period_s     int not null check (period_s between 60 and 86400),
    valid_from   date not null,
    most         int check (most > 0),
    because      text not null check (because <> ''),
    primary key (entrance, family, prefix_bits, period_s, valid_from)
);
insert into login_source_rule (entrance, family, prefix_bits, period_s, valid_from, most, because)
select entrance, family, prefix_bits, period_s, '2026-01-01', most,
       'OWASP ASVS 5.0.0 6.3.1；本平台设定'
  from unnest(array['person', 'operator', 'staff', 'developer']) as entrance,
       (values (4, 32, 3600, 100), (4, 24, 3600, 400), (4, 32, 86400, 500),
               (6, 64, 3600, 100), (6, 48, 3600, 400), (6, 64, 86400, 500))
    as each (family, prefix_bits, period_s, most);

-- Tries of a period; one that succeeded is given back. `subject` is a keyed hash of who and where.
create table login_source_use (
    subject    bytea not null check (length(subject) = 32),
    period_s   int not null check (period_s > 0),
    starts_at  timestamptz not null,
    used       int not null check (used >= 0),
    primary key (subject, period_s, starts_at)
);
create index login_source_use_by_start on login_source_use (starts_at);
