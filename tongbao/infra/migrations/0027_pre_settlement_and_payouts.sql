-- Settlement, payouts and transfers. Only a licensed firm may settle and pay out: elsewhere nothing
-- of this exists.
do $$
begin
    if (select licence from deployment where id = 1) = 'aggregator' then
        return;
    end if;

    insert into ledger_account_kind (kind, side, floor) values ('merchant_reserve', 'credit', 0);

    -- What was agreed with a merchant about settlement, in versions that begin on a day. Without a
    -- row the merchant's own delay counts, in calendar days, from midnight to midnight.
    create table settlement_term (
        id             uuid        not null primary key,
        merchant_id    uuid        not null,
        mode           text        not null check (mode in ('live', 'sandbox')),
        version        int         not null check (version > 0),
        valid_from     date        not null, -- the first accounting day under it
        delay_days     int         not null check (delay_days between 1 and 60), -- T+N
        counts         text        not null check (counts in ('calendar', 'working')),
        cut_off_minute int         not null check (cut_off_minute between 1 and 1440),
        payable_min    bigint      not null check (payable_min >= 0),
        reserve_ppm    int         not null check (reserve_ppm between 0 and 1000000),
        reserve_days   int         not null check (reserve_days between 0 and 730),
        quick_allowed  boolean     not null, -- D+0 when the merchant asks
        quick_ppm      int         not null check (quick_ppm between 0 and 100000),
        quick_fee_min  bigint      not null check (quick_fee_min >= 0),
        pays_by        text        not null check (pays_by in ('bank_api', 'bank_file')),
        created_at     timestamptz not null,
        created_by     text        not null,
        unique (merchant_id, mode, version),
        check ((reserve_ppm = 0) = (reserve_days = 0))
    );
    create index settlement_term_from on settlement_term
        (merchant_id, mode, valid_from desc, version desc);

    -- Nothing, or so much less, is paid to a merchant until it is lifted or its day has come.
    create table settlement_hold (
        id          uuid        not null primary key,
        merchant_id uuid        not null,
        mode        text        not null check (mode in ('live', 'sandbox')),
        amount      bigint      check (amount > 0), -- of each currency; none is everything
        reason      text        not null check (length(reason) between 4 and 500),
        until_day   date,                           -- the first day without it
        placed_by   text        not null,
        placed_at   timestamptz not null,
        lifted_by   text,
        lifted_at   timestamptz,
        check ((lifted_by is null) = (lifted_at is null))
    );
    create index settlement_hold_on on settlement_hold (merchant_id, mode) where lifted_at is null;

    -- Settlements that are looked at and let go together.
    create table settlement_batch (
        id             uuid        not null primary key,
        key            text        not null unique, -- the round's day, or whoever asked
        mode           text        not null check (mode in ('live', 'sandbox')),
        day            date,                        -- one day of everybody, or each one's newest
        state          text        not null check (state in
            ('drawing', 'drawn', 'releasing', 'released', 'dropping', 'dropped')),
        releases_itself boolean    not null,
        cursor         text,                        -- merchants are drawn up to here
        looked_at      int         not null check (looked_at >= 0), -- merchants so far
        created_by     text        not null,
        created_at     timestamptz not null,
        drawn_at       timestamptz,
        ended_at       timestamptz,
        check ((ended_at is not null) = (state in ('released', 'dropped'))),
        check ((drawn_at is null) = (state = 'drawing'))
    );
    create index settlement_batch_open on settlement_batch (created_at)
        where state not in ('released', 'dropped');

    -- Who was taken out of a batch again, by whom and why.
    create table settlement_left_out (
        batch_id    uuid        not null references settlement_batch (id),
        merchant_id uuid        not null,
        mode        text        not null check (mode in ('live', 'sandbox')),
        currency    text        not null check (currency ~ '^[A-Z]{3}$'),
        reason      text        not null,
        by          text        not null,
        at          timestamptz not null,
        primary key (batch_id, merchant_id, currency)
    );

    create table settlement (
        book          int         not null,
        id            uuid        not null,
        merchant_id   uuid        not null,
        mode          text        not null check (mode in ('live', 'sandbox')),
        currency      text        not null check (currency ~ '^[A-Z]{3}$'),
        kind          text        not null check (kind in ('day', 'quick')),
        day           date        not null,
        number        int         not null check (number > 0), -- in the account's chain
        previous_id   uuid,
        batch_id      uuid,
        opening       bigint      not null,
        gross         bigint      not null,
        fees          bigint      not null,
        refunds       bigint      not null,
        fees_returned bigint      not null,
        other         bigint      not null,
        due           bigint      not null,
        reserved      bigint      not null check (reserved >= 0), -- kept back for a time
        quick_fee     bigint      not null check (quick_fee >= 0),
        payable       bigint      not null check (payable >= 0),
        carried       bigint      not null,
        line_count    int         not null check (line_count >= 0),
        through_seq   bigint      not null check (through_seq >= 0),
        newest_seq    bigint      not null check (newest_seq >= 0), -- no line so far is above it
        reserve_until date,
        pays_by       text        not null check (pays_by in ('bank_api', 'bank_file')),
        state         text        not null check (state in
            ('drawn', 'closed', 'paid', 'unpaid', 'returned')),
        payout_id     uuid,
        drawn_at      timestamptz not null,
        closed_at     timestamptz,
        primary key (book, id),
        -- A chain: each settlement follows one other, and nothing else follows that one.
        unique (book, merchant_id, mode, currency, number),
        check ((number = 1) = (previous_id is null)),
        check (due = opening + gross - fees - refunds + fees_returned + other),
        check (due = payable + reserved + quick_fee + carried),
        check (quick_fee = 0 or kind = 'quick'),
        check ((payout_id is not null) = (payable > 0)),
        check ((reserve_until is not null) = (reserved > 0)),
        check ((closed_at is null) = (state = 'drawn')),
        check (state in ('drawn', 'closed') or payout_id is not null)
    );
    create unique index settlement_of_day on settlement (book, merchant_id, mode, currency, day)
        where kind = 'day';
    create index settlement_of_merchant on settlement (merchant_id, mode, id);
    create index settlement_of_batch on settlement (batch_id, id) where batch_id is not null;

    -- Every movement of a merchant's account is settled once.
    create table settlement_line (
        book          int    not null,
        seq           bigint not null,
        merchant_id   uuid   not null,
        mode          text   not null check (mode in ('live', 'sandbox')),
        settlement_id uuid   not null,
        code          text   not null,
        reference     uuid   not null,
        amount        bigint not null check (amount <> 0),
        biz_date      date   not null,
        primary key (book, seq, merchant_id)
    );
    create index settlement_line_of on settlement_line (book, settlement_id, seq);

    -- What a settlement kept back, until its day has come.
    create table reserve_part (
        book          int         not null,
        settlement_id uuid        not null,
        merchant_id   uuid        not null,
        mode          text        not null check (mode in ('live', 'sandbox')),
        currency      text        not null check (currency ~ '^[A-Z]{3}$'),
        amount        bigint      not null check (amount > 0),
        release_on    date        not null,
        released_at   timestamptz,
        primary key (book, settlement_id)
    );
    create index reserve_part_due on reserve_part (release_on, book, settlement_id)
        where released_at is null;
    create index reserve_part_of_merchant on reserve_part (merchant_id, mode, settlement_id);

    create table payout (
        book                int         not null,
        id                  uuid        not null,
        settlement_id       uuid        not null,
        merchant_id         uuid        not null,
        mode                text        not null check (mode in ('live', 'sandbox')),
        amount              bigint      not null check (amount > 0),
        currency            text        not null check (currency ~ '^[A-Z]{3}$'),
        state               text        not null check (state in
            ('requested', 'pending', 'unknown', 'succeeded', 'failed', 'returned')),
        pays_by             text        not null check (pays_by in ('bank_api', 'bank_file')),
        file_id             uuid,  -- the file for the bank that has it
        account_id          uuid,  -- ours at the bank
        bank_holder         text,  -- whose the creditor's account is, and which one: fixed before
        bank_account_masked text,  -- the first instruction, never changed after it
        bank_account_sealed bytea,
        code                text,
        bank_ref            text,
        return_ref          text,  -- the bank's own word for the money that came back
        contradiction       text,  -- evidence that came after the end and says otherwise
        sends               int         not null check (sends >= 0),
        queries             int         not null check (queries >= 0),
        version             int         not null check (version > 0),
        created_at          timestamptz not null,
        ended_at            timestamptz,
        returned_at         timestamptz,
        primary key (book, id),
        unique (book, settlement_id),
        check ((account_id is null) = (bank_account_sealed is null)),
        check ((bank_holder is null) = (bank_account_sealed is null)),
        check ((bank_account_masked is null) = (bank_account_sealed is null)),
        check (sends = 0 or account_id is not null),
        check (file_id is null or pays_by = 'bank_file'),
        check ((ended_at is null) = (state in ('requested', 'pending', 'unknown'))),
        check (state not in ('succeeded', 'returned') or bank_ref is not null),
        check ((returned_at is not null) = (state = 'returned')),
        check ((return_ref is not null) = (state = 'returned'))
    );
    create index payout_of_merchant on payout (merchant_id, mode, id);
    create index payout_open on payout (created_at)
        where state in ('requested', 'pending', 'unknown');
    create index payout_ended on payout (ended_at) where ended_at is not null;
    create index payout_returned on payout (returned_at) where returned_at is not null;
    create index payout_of_file on payout (file_id, id) where file_id is not null;
    create index payout_unfiled on payout (mode, currency, created_at)
        where state = 'requested' and pays_by = 'bank_file' and file_id is null;

    create table payout_exchange (
        book        int         not null,
        id          uuid        not null,
        payout_id   uuid        not null,
        purpose     text        not null check (purpose in ('pay_out', 'query', 'file')),
        method      text        not null,
        url         text        not null,
        request     text        not null,
        status      int,
        reply       text        not null,
        duration_ms int         not null,
        outcome     text        not null,
        at          timestamptz not null,
        primary key (book, id),
        foreign key (book, payout_id) references payout (book, id)
    );
    create index payout_exchange_of on payout_exchange (book, payout_id, id);

    -- A file of payouts for a bank. It is written from its payouts, the same to the byte at every
    -- time, so what is kept is how it must come out.
    create table payout_file (
        id          uuid        not null primary key,
        mode        text        not null check (mode in ('live', 'sandbox')),
        account_id  uuid        not null,
        layout      text        not null check (layout in ('pain001', 'csv')),
        currency    text        not null check (currency ~ '^[A-Z]{3}$'),
        count       int         not null check (count > 0),
        amount      bigint      not null check (amount > 0),
        digest      bytea       not null check (length(digest) = 32),
        state       text        not null check (state in
            ('made', 'sent', 'overdue', 'answered')),
        made_by     text        not null,
        made_at     timestamptz not null,
        sent_by     text,
        sent_at     timestamptz,
        check ((sent_at is null) = (state = 'made')),
        check ((sent_at is null) = (sent_by is null))
    );

    -- A merchant pays many people out of what it is owed.
    create table transfer_batch (
        book        int         not null,
        id          uuid        not null,
        merchant_id uuid        not null,
        mode        text        not null check (mode in ('live', 'sandbox')),
        number      text        not null, -- the merchant's own
        digest      bytea       not null check (length(digest) = 32), -- of the file
        currency    text        not null check (currency ~ '^[A-Z]{3}$'),
        count       int         not null check (count > 0),
        amount      bigint      not null check (amount > 0),
        state       text        not null check (state in ('listed', 'running', 'done', 'dropped')),
        created_by  text        not null,
        created_at  timestamptz not null,
        ended_at    timestamptz,
        primary key (book, id),
        unique (book, merchant_id, mode, number),
        check ((ended_at is not null) = (state in ('done', 'dropped')))
    );
    create index transfer_batch_of_merchant on transfer_batch (merchant_id, mode, id);

    create table transfer_item (
        book         int         not null,
        id           uuid        not null,
        batch_id     uuid        not null,
        merchant_id  uuid        not null,
        mode         text        not null check (mode in ('live', 'sandbox')),
        line         int         not null check (line > 0), -- of the file
        number       text        not null,                  -- the merchant's own
        destination  text        not null check (destination in
            ('bank', 'wallet', 'wechat_pay', 'alipay')),
        payee_masked text        not null,
        payee_sealed bytea       not null,
        amount       bigint      not null check (amount > 0),
        currency     text        not null check (currency ~ '^[A-Z]{3}$'),
        note         text        not null,
        state        text        not null check (state in
            ('listed', 'held', 'pending', 'unknown', 'succeeded', 'failed', 'refused', 'returned')),
        account_id   uuid,       -- ours at the channel, before the first instruction
        code         text,
        channel_ref  text,
        action       jsonb,      -- what the payee is to do, such as confirm in an app
        sends        int         not null check (sends >= 0),
        queries      int         not null check (queries >= 0),
        version      int         not null check (version > 0),
        ended_at     timestamptz,
        primary key (book, id),
        unique (book, batch_id, number),
        unique (book, batch_id, line),
        foreign key (book, batch_id) references transfer_batch (book, id),
        check ((ended_at is null) = (state in ('listed', 'held', 'pending', 'unknown'))),
        check (sends = 0 or account_id is not null)
    );

    create table transfer_exchange (
        book        int         not null,
        id          uuid        not null,
        item_id     uuid        not null,
        purpose     text        not null check (purpose in ('transfer', 'query', 'file')),
        method      text        not null,
        url         text        not null,
        request     text        not null,
        status      int,
        reply       text        not null,
        duration_ms int         not null,
        outcome     text        not null,
        at          timestamptz not null,
        primary key (book, id),
        foreign key (book, item_id) references transfer_item (book, id)
    );
    create index transfer_exchange_of on transfer_exchange (book, item_id, id);

    -- What a bank sent back: read once, however often it is brought.
    create table payout_answer (
        digest     bytea       not null primary key check (length(digest) = 32),
        account_id uuid        not null,
        kind       text        not null,
        lines      int         not null check (lines >= 0),
        applied    int         not null check (applied >= 0),
        brought_by text        not null,
        brought_at timestamptz not null
    );
end
$$;
