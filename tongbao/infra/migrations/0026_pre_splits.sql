-- Splits (分账): shares of a payment for others, given by the book or by the channel.

-- What of the payment is given away or on its way to be, less what came back. On the payment's own
-- row, so that a split, a refund and a dispute cannot all have the same money.
alter table payment
    add column shared       bigint  not null default 0,
    add column shares_ended boolean not null default false,  -- no more shares may follow
    add constraint payment_shared check (shared between 0 and captured);

-- How much of a payment a merchant may give away, in millionths, and who pays when a shared payment
-- is refunded. Without a row: docs/explanation/splits.md.
create table split_policy (
    merchant_id   uuid not null references merchant (id),
    mode          text not null check (mode in ('live', 'sandbox')),
    share_max_ppm int  not null check (share_max_ppm between 0 and 1000000),
    refund_from   text not null check (refund_from in ('receivers', 'merchant')),
    set_at        timestamptz not null,
    set_by        text not null check (set_by <> ''),
    primary key (merchant_id, mode)
);

create table split_receiver (
    book           int         not null,
    id             uuid        not null,
    merchant_id    uuid        not null,
    mode           text        not null check (mode in ('live', 'sandbox')),
    kind           text        not null check (kind in ('merchant', 'wallet', 'channel')),
    party_id       uuid,                  -- the merchant's or the wallet's
    account_id     uuid,                  -- our account at the channel
    channel        text,
    channel_kind   text,                  -- the channel's word for whose account it is
    account_masked text        not null,
    account_mac    bytea       not null check (length(account_mac) = 32),
    sealed         bytea,                 -- the account there, and the name, encrypted
    relation       text        not null,
    state          text        not null
        check (state in ('binding', 'active', 'failed', 'unbinding', 'unbound')),
    code           text,
    created_at     timestamptz not null,
    ended_at       timestamptz,
    version        int         not null check (version > 0),
    primary key (book, id),
    check ((kind = 'channel') = (party_id is null)),
    check ((kind = 'channel')
           = (account_id is not null and channel is not null and channel_kind is not null
              and sealed is not null)),
    check ((ended_at is null) = (state in ('binding', 'active', 'unbinding')))
);
-- The same receiver is bound once at a time.
create unique index split_receiver_once on split_receiver (book, merchant_id, mode, account_mac)
    where state in ('binding', 'active', 'unbinding');
create index split_receiver_of_merchant on split_receiver (merchant_id, mode, id);

create table split (
    book              int         not null,
    id                uuid        not null,
    payment_id        uuid        not null,
    merchant_id       uuid        not null,
    mode              text        not null check (mode in ('live', 'sandbox')),
    merchant_split_no text        not null check (length(merchant_split_no) between 1 and 64),
    request_hash      bytea       not null,
    currency          text        not null,
    amount            bigint      not null check (amount >= 0),
    side              text        not null check (side in ('book', 'channel')),
    kind              text        not null check (kind in ('shares', 'finish')),
    account_id        uuid,                 -- our account at the channel that gives the shares
    channel_trade     text,                 -- and the payment's number there
    releases          text        not null check (releases in ('now', 'at', 'later')),
    release_at        timestamptz,
    state             text        not null check (state in
        ('held', 'requested', 'pending', 'unknown', 'ended', 'cancelled')),
    code              text,
    channel_ref       text,
    created_at        timestamptz not null,
    ended_at          timestamptz,
    queries           int         not null default 0,
    version           int         not null check (version > 0),
    primary key (book, id),
    unique (book, merchant_id, mode, merchant_split_no),
    foreign key (book, payment_id) references payment (book, id),
    check ((kind = 'finish') = (amount = 0)),
    check ((releases = 'at') = (release_at is not null)),
    check ((side = 'channel') = (account_id is not null)),
    check ((ended_at is null) = (state in ('held', 'requested', 'pending', 'unknown')))
);
create index split_by_id on split (id);
create index split_of_payment on split (book, payment_id);
create index split_of_merchant on split (merchant_id, mode, id);

create table split_share (
    book         int    not null,
    id           uuid   not null,
    split_id     uuid   not null,
    payment_id   uuid   not null,
    receiver_id  uuid   not null,
    amount       bigint not null check (amount > 0),
    state        text   not null check (state in
        ('held', 'pending', 'succeeded', 'failed', 'cancelled')),
    code         text,                      -- why it failed, in the channel's word
    channel_ref  text,
    returned     bigint not null default 0, -- come back, or asked to
    version      int    not null check (version > 0),
    primary key (book, id),
    unique (book, split_id, receiver_id),
    foreign key (book, split_id) references split (book, id),
    foreign key (book, receiver_id) references split_receiver (book, id),
    check (returned between 0 and amount),
    check (returned = 0 or state = 'succeeded')
);
create index split_share_of_payment on split_share (book, payment_id);

create table split_return (
    book               int         not null,
    id                 uuid        not null,
    share_id           uuid        not null,
    split_id           uuid        not null,
    payment_id         uuid        not null,
    merchant_id        uuid        not null,
    mode               text        not null check (mode in ('live', 'sandbox')),
    merchant_return_no text        not null check (length(merchant_return_no) between 1 and 64),
    refund_id          uuid,                -- of the refund it belongs to
    amount             bigint      not null check (amount > 0),
    state              text        not null check (state in
        ('requested', 'pending', 'unknown', 'succeeded', 'failed')),
    code               text,
    channel_ref        text,
    created_at         timestamptz not null,
    ended_at           timestamptz,
    queries            int         not null default 0,
    version            int         not null check (version > 0),
    primary key (book, id),
    unique (book, merchant_id, mode, merchant_return_no),
    foreign key (book, share_id) references split_share (book, id),
    check ((ended_at is null) = (state in ('requested', 'pending', 'unknown')))
);
create index split_return_of_payment on split_return (book, payment_id);
create index split_return_of_refund on split_return (book, refund_id) where refund_id is not null;

-- Calls about shares are kept as evidence beside those about the payment.
alter table exchange
    drop constraint exchange_purpose_check,
    add constraint exchange_purpose_check check (purpose in
        ('pay', 'query', 'close', 'refund', 'query_refund', 'authorise', 'query_authorisation',
         'capture', 'query_capture', 'void', 'split', 'query_split', 'unfreeze', 'split_return',
         'query_split_return'));
