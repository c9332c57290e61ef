-- Our accounts at channels. The keys are sealed; only a call, or a callback to verify, opens them.

create table channel_account (
    id              uuid primary key,
    channel         text not null check (channel <> ''),
    mode            text not null check (mode in ('live', 'sandbox')),
    gateway         text not null check (gateway ~ '^(https?|tcps?)://[^/]' and gateway !~ '/$'),
    merchant_number text not null check (merchant_number <> ''),
    app_id          text not null check (app_id <> ''),
    -- the unguessable part of the address the channel sends callbacks to
    notify_token    text not null check (length(notify_token) >= 32),
    fee_ppm         int not null check (fee_ppm between 0 and 1000000),
    sealed_secrets  bytea not null,
    -- closed: no new payments; those made are still asked about, refunded and reconciled
    state           text not null check (state in ('open', 'closed')),
    created_at      timestamptz not null,
    check (mode = 'sandbox' or gateway ~ '^(https|tcps)://'),
    unique (channel, mode, merchant_number, app_id),
    unique (notify_token)
);
