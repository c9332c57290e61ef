-- What processes remember and was changed since: bumped in the very commit that changes it. A
-- process asks once in a moment for the marks of commits that its last question could not see.

create table change_mark (
    what        text not null check (what <> ''),
    of_id       uuid not null,
    version     bigint not null check (version > 0),
    changed_in  bigint not null,                -- the transaction, by its 64-bit number
    primary key (what, of_id)
);

create index change_mark_changed_in on change_mark (changed_in);
