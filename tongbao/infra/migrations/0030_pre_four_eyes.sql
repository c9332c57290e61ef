-- What four eyes agree to about keys, beside the rows of the things themselves.

-- A live key's secret is shown once to whoever collects it; it lies sealed with its key as always.
create table api_key_handover (
    approval_id   uuid primary key references approval (id),
    key_id        uuid not null unique references api_key (id),
    collected_at  timestamptz,
    collected_by  text check (collected_by <> ''),
    check ((collected_at is null) = (collected_by is null))
);

-- A channel's keys between their proposal and its end; the proposal has fingerprints only.
create table channel_keys_waiting (
    id      uuid primary key,
    sealed  bytea not null,
    put_at  timestamptz not null
);
