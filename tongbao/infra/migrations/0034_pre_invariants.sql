-- The audit log as a chain of hashes, and the last word on each invariant.

-- Links are appended behind the log, in the order in which they are found; an entry has one.
create table audit_link (
    number   bigint not null primary key check (number > 0),
    entry_id uuid   not null unique,
    digest   bytea  not null check (length(digest) = 32)
);
revoke update, delete, truncate on audit_link from current_user;

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
