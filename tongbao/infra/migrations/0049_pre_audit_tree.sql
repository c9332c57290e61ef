-- The audit log as a tree (RFC 6962): each entry has a place that never changes, and what the whole
-- is is signed every minute.

create table audit_tree (
    name      text   not null primary key check (name = 'audit'),
    size      bigint not null check (size >= 0),
    frontier  bytea  not null check (length(frontier) % 32 = 0)
);

create table audit_leaf (
    number    bigint not null primary key check (number > 0),
    entry_id  uuid   not null unique,
    hash      bytea  not null check (length(hash) = 32)
);

create table audit_node (
    level   int    not null check (level between 1 and 62),
    number  bigint not null check (number >= 0),
    hash    bytea  not null check (length(hash) = 32),
    primary key (level, number)
);

create table audit_checkpoint (
    number    bigint      not null primary key check (number > 0),
    size      bigint      not null check (size > 0),
    root      bytea       not null check (length(root) = 32),
    frontier  bytea       not null,
    at        timestamptz not null,
    note      text        not null
);

revoke update, delete, truncate on audit_leaf, audit_node, audit_checkpoint from current_user;
