-- Where a person's phone is reached by push, sealed under the person's own key; and of what they
-- do not want to hear.
create table person_push_token (
    mode       text not null check (mode in ('live', 'sandbox')),
    blind      bytea not null check (length(blind) = 32),
    device_id  uuid not null unique references person_device (id),
    person_id  uuid not null references person (id),
    sealed     bytea not null,
    set_at     timestamptz not null,
    primary key (mode, blind)
);
create index person_push_token_of on person_push_token (person_id);

create table person_notice_choice (
    person_id  uuid not null references person (id),
    topic      text not null check (topic in ('money')),
    wanted     boolean not null,
    set_at     timestamptz not null,
    primary key (person_id, topic)
);
