-- Red packets: what somebody put aside for a group of people, how it is split, who took which part.
-- The money lies in an account of the ledger (`subsidy`, owned by the red packet). Only where there
-- are wallets.
do $$
begin
    if (select licence from deployment where id = 1) = 'aggregator' then
        return;
    end if;

    -- Every grab raises the running totals of this row by compare and set, in the commit that moves
    -- the money, so no packet is taken twice and no fen is taken that is not there.
    create table red_packet (
        book         int         not null,
        id           uuid        not null,
        merchant_id  uuid        not null,
        mode         text        not null check (mode in ('live', 'sandbox')),
        sender_id    uuid        not null,           -- the wallet it was filled from
        kind         text        not null check (kind in ('equal', 'lucky')),
        amount       bigint      not null check (amount > 0),
        currency     text        not null check (currency ~ '^[A-Z]{3}$'),
        parts        int         not null check (parts > 0),
        greeting     text        not null check (length(greeting) <= 100),
        state        text        not null check (state in ('open', 'emptied', 'returned')),
        grabbed      int         not null check (grabbed between 0 and parts),
        taken        bigint      not null check (taken >= 0),
        returned     bigint      not null check (returned >= 0),
        created_at   timestamptz not null,
        expires_at   timestamptz not null,
        ended_at     timestamptz,
        primary key (book, id),
        foreign key (book, sender_id) references wallet (book, id),
        check (amount >= parts),
        -- At least one minor unit is left for every part that is left, and nothing after the last.
        check (taken + (parts - grabbed) <= amount),
        check (grabbed < parts or taken = amount),
        check (taken >= grabbed),
        check ((state = 'open') = (ended_at is null)),
        check ((state = 'emptied') = (grabbed = parts)),
        check (returned = case when state = 'returned' then amount - taken else 0 end),
        check (created_at < expires_at)
    ) with (fillfactor = 50);
    create index red_packet_of_merchant on red_packet (book, merchant_id, mode, id);
    create index red_packet_of_sender on red_packet (book, sender_id, id);

    -- Drawn when the red packet is filled and never changed: the n-th to come takes amounts[n].
    create table red_packet_split (
        book           int      not null,
        red_packet_id  uuid     not null,
        amounts        bigint[] not null check (array_position(amounts, null) is null),
        primary key (book, red_packet_id),
        foreign key (book, red_packet_id) references red_packet (book, id)
    );

    -- One per person and one per part. Its id is the reference of the money in the ledger.
    create table red_packet_grab (
        book           int         not null,
        red_packet_id  uuid        not null,
        wallet_id      uuid        not null,
        id             uuid        not null,
        part           int         not null check (part > 0),
        amount         bigint      not null check (amount > 0),
        grabbed_at     timestamptz not null,
        primary key (book, red_packet_id, wallet_id),
        unique (book, red_packet_id, part),
        foreign key (book, red_packet_id) references red_packet (book, id)
    );
    create index red_packet_grab_by_wallet on red_packet_grab (book, wallet_id, id);

    -- What may be sent, from a day on; the newest row that has begun counts. Lowered or raised by
    -- adding a row.
    create table red_packet_limit (
        currency    text   not null check (currency ~ '^[A-Z]{3}$'),
        valid_from  date   not null,
        each_max    bigint not null check (each_max > 0),
        total_max   bigint not null check (total_max >= each_max),
        parts_max   int    not null check (parts_max between 1 and 100000),
        source      text   not null check (length(source) between 1 and 300),
        primary key (currency, valid_from)
    );
    insert into red_packet_limit (currency, valid_from, each_max, total_max, parts_max, source)
    values ('CNY', '2026-01-01', 20000, 20000000, 100000,
            'house rule, not law: 200 yuan for one part, as people know it from WeChat; the total'
            ' and the parts are what this was measured with');
end
$$;
