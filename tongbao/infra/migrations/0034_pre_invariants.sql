-- The last word on each invariant.

create table invariant_light (
    name       text        not null primary key check (name ~ '^I[0-9]{1,2}$'),
    breaches   bigint      not null check (breaches >= 0),
    first      text        not null,
    took_ms    bigint      not null check (took_ms >= 0),
    checked_at timestamptz not null,
    red_since  timestamptz,
    check ((red_since is not null) = (breaches > 0)),
    check (breaches > 0 or first = '')
);
