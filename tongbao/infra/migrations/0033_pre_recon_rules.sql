-- How statements are read and matched, as dated data: the newest word on the latest day up to a
-- day counts on it. Rows are only ever added, by an approval that two people gave.
create table source_layout (
    source      text        not null,
    valid_from  date        not null,
    set_at      timestamptz not null,
    layout      text        not null, -- JSON, as it is read by
    written     text        not null, -- as people wrote it
    approved_as text        not null,
    primary key (source, valid_from, set_at)
);

create table match_rule (
    name        text        not null,
    valid_from  date        not null,
    set_at      timestamptz not null,
    rule        text        not null, -- JSON; empty: no rule any more from that day on
    written     text        not null,
    approved_as text        not null,
    primary key (name, valid_from, set_at)
);
revoke update, delete, truncate on source_layout, match_rule from current_user;
