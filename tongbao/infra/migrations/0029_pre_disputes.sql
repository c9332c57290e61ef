-- Disputes (chargebacks) and complaints: what customers object to after they have paid.

insert into ledger_account_kind (kind, side, floor)
select chart.kind, chart.side, chart.floor
  from (values
        ('bad_debt', 'debit', null, false),
        ('dispute_at_scheme', 'debit', 0, false),
        ('dispute_held', 'credit', 0, true),
        ('merchant_debt', 'debit', 0, false)
       ) as chart (kind, side, floor, holds_funds)
  cross join deployment
 where not chart.holds_funds or deployment.licence <> 'aggregator';

-- What disputes hold or have taken of a payment: a total on the row that refunds are counted on,
-- so that a refund and a dispute never get the same money.
alter table payment
    add column disputed bigint not null default 0,
    add constraint payment_disputed_once check (disputed >= 0 and refunded + disputed <= captured);

-- How long each stage may take and what follows when nobody acts: dated, with where it is written.
-- The newest row that is in force on the day a stage begins counts for the whole of the stage.
create table dispute_term (
    scheme   text not null,
    stage    text not null check (stage in
        ('retrieval', 'chargeback', 'represented', 'pre_arbitration', 'arbitration')),
    in_force date not null,
    days     int  not null check (days > 0), -- calendar days; the last one counts whole
    at_end   text not null check (at_end in ('closed', 'lost', 'won', 'people')),
    source   text not null check (source <> ''),
    primary key (scheme, stage, in_force)
);
insert into dispute_term (scheme, stage, in_force, days, at_end, source)
values
    ('unionpay', 'retrieval', date '2020-01-01', 20, 'closed',
     'UnionPay error handling, as acquirers publish it: answer a retrieval within 20 days'),
    ('unionpay', 'chargeback', date '2020-01-01', 25, 'lost',
     'docs.adyen.com, chargeback guidelines, China UnionPay: merchant response 25 calendar days'),
    ('unionpay', 'represented', date '2020-01-01', 20, 'won',
     'docs.adyen.com, chargeback guidelines, China UnionPay: second chargeback within 20 days'),
    ('unionpay', 'pre_arbitration', date '2020-01-01', 20, 'lost',
     'the window of the stage before, kept until the acquirer names another'),
    ('visa', 'retrieval', date '2020-01-01', 18, 'closed',
     'docs.adyen.com, chargeback guidelines, Visa: merchant response 18 calendar days'),
    ('visa', 'chargeback', date '2020-01-01', 18, 'lost',
     'docs.adyen.com, chargeback guidelines, Visa: merchant response 18 calendar days'),
    ('visa', 'represented', date '2020-01-01', 30, 'won',
     'docs.adyen.com, chargeback guidelines, Visa: second chargeback within 30 days'),
    ('visa', 'pre_arbitration', date '2020-01-01', 30, 'lost',
     'paymentsandrisk.com, chargeback time frames, Visa: pre-arbitration 30 days'),
    ('mastercard', 'retrieval', date '2020-01-01', 18, 'closed',
     'the shortest window of the schemes, kept until the acquirer names another'),
    ('mastercard', 'chargeback', date '2020-01-01', 40, 'lost',
     'docs.adyen.com, chargeback guidelines, Mastercard: merchant response 40 calendar days'),
    ('mastercard', 'represented', date '2020-01-01', 45, 'won',
     'docs.adyen.com, chargeback guidelines, Mastercard: second chargeback within 45 days'),
    ('mastercard', 'pre_arbitration', date '2020-01-01', 30, 'lost',
     'paymentsandrisk.com, chargeback time frames, Mastercard: pre-arbitration 30 days'),
    ('jcb', 'chargeback', date '2020-01-01', 40, 'lost',
     'docs.adyen.com, chargeback guidelines, JCB: merchant response 40 calendar days'),
    ('jcb', 'represented', date '2020-01-01', 45, 'won',
     'docs.adyen.com, chargeback guidelines, JCB: second chargeback within 45 days'),
    ('other', 'retrieval', date '2020-01-01', 10, 'people', 'the house: no scheme says'),
    ('other', 'chargeback', date '2020-01-01', 10, 'people', 'the house: no scheme says'),
    ('other', 'represented', date '2020-01-01', 45, 'people', 'the house: no scheme says'),
    ('other', 'pre_arbitration', date '2020-01-01', 10, 'people', 'the house: no scheme says');

create table dispute (
    book         int         not null,
    id           uuid        not null,
    payment_id   uuid        not null,
    attempt_id   uuid        not null,
    merchant_id  uuid        not null,
    mode         text        not null check (mode in ('live', 'sandbox')),
    account_id   uuid        not null, -- ours at the channel that collected the payment
    scheme       text        not null,
    scheme_ref   text        not null check (length(scheme_ref) between 1 and 64),
    reason_code  text        not null,
    reason       text        not null,
    state        text        not null check (state in
        ('retrieval', 'closed', 'chargeback', 'represented', 'pre_arbitration', 'arbitration',
         'won', 'lost', 'accepted')),
    amount       bigint      not null check (amount > 0),
    currency     text        not null check (currency ~ '^[A-Z]{3}$'),
    held         bigint      not null default 0, -- set aside of the merchant's money and debt
    owed         bigint      not null default 0, -- of it what the merchant did not have
    at_scheme    bigint      not null default 0, -- what the scheme has taken back meanwhile
    fee          bigint      not null default 0 check (fee >= 0),
    deadline_at  timestamptz,
    at_end       text,
    term_source  text,
    reminded     int         not null default 0 check (reminded >= 0),
    submitted_at timestamptz, -- the merchant's answer to the present stage is here, not yet sent on
    answer       text        not null default '',
    opened_at    timestamptz not null,
    ended_at     timestamptz,
    version      int         not null check (version > 0),
    primary key (book, id),
    unique (book, account_id, scheme_ref),
    check (held in (0, amount)),
    check ((held > 0) = (state in
        ('chargeback', 'represented', 'pre_arbitration', 'arbitration'))),
    check (owed between 0 and amount + fee),
    check (at_scheme in (0, amount)),
    check (at_scheme = 0 or held > 0),
    check ((ended_at is null) = (state in
        ('retrieval', 'chargeback', 'represented', 'pre_arbitration', 'arbitration'))),
    check ((deadline_at is null) = (at_end is null)),
    check (submitted_at is null or state in ('retrieval', 'chargeback', 'pre_arbitration'))
);
create index dispute_of_merchant on dispute (merchant_id, mode, id);
create index dispute_of_payment on dispute (payment_id);
create index dispute_waiting on dispute (deadline_at) where ended_at is null;
create index dispute_owed on dispute (merchant_id) where owed > 0;

-- The state machine, stated a second time: every change of a dispute writes a row in its commit.
create table dispute_change (
    book       int         not null,
    dispute_id uuid        not null,
    version    int         not null,
    from_state text        not null,
    to_state   text        not null,
    why        text        not null,
    actor      text        not null,
    at         timestamptz not null,
    primary key (book, dispute_id, version),
    check (from_state || '>' || to_state = any (array[
        'new>retrieval', 'new>chargeback',
        'retrieval>closed', 'retrieval>chargeback', 'closed>chargeback',
        'chargeback>represented', 'chargeback>accepted', 'chargeback>lost', 'chargeback>won',
        'represented>pre_arbitration', 'represented>won', 'represented>lost',
        'pre_arbitration>arbitration', 'pre_arbitration>accepted', 'pre_arbitration>lost',
        'pre_arbitration>won', 'arbitration>won', 'arbitration>lost',
        -- nothing moved on, and it is worth a line: an answer came in, a reminder went out
        'retrieval>retrieval', 'chargeback>chargeback', 'pre_arbitration>pre_arbitration']))
);

-- What merchants and operators hand in for a dispute or a complaint. The file itself is a blob.
create table evidence_file (
    book        int         not null,
    id          uuid        not null,
    merchant_id uuid        not null,
    mode        text        not null check (mode in ('live', 'sandbox')),
    subject_id  uuid        not null, -- the dispute or complaint
    name        text        not null check (length(name) between 1 and 120),
    media_type  text        not null check (media_type in
        ('application/pdf', 'image/jpeg', 'image/png')),
    size        int         not null check (size between 1 and 716800),
    sha256      text        not null check (sha256 ~ '^[0-9a-f]{64}$'),
    blob        text        not null,
    added_by    text        not null,
    added_at    timestamptz not null,
    primary key (book, id),
    unique (book, subject_id, sha256)
);

create table complaint (
    book           int         not null,
    id             uuid        not null,
    merchant_id    uuid        not null,
    mode           text        not null check (mode in ('live', 'sandbox')),
    account_id     uuid        not null,
    channel        text        not null,
    channel_ref    text        not null check (length(channel_ref) between 1 and 64),
    payment_id     uuid        not null,
    state          text        not null check (state in ('pending', 'processing', 'processed')),
    kind           text        not null, -- the channel's word for what it is about
    detail         text        not null,
    amount         bigint      not null check (amount >= 0),
    currency       text        not null check (currency ~ '^[A-Z]{3}$'),
    times          int         not null check (times >= 1), -- how often the customer has complained
    is_refunded    boolean     not null, -- the channel says that all was given back
    has_news       boolean     not null, -- the customer said something that nobody has answered
    answer_by      timestamptz not null,
    complained_at  timestamptz not null,
    first_seen_at  timestamptz not null,
    ended_at       timestamptz,
    version        int         not null check (version > 0),
    primary key (book, id),
    unique (book, account_id, channel_ref),
    check ((ended_at is null) = (state <> 'processed'))
);
create index complaint_of_merchant on complaint (merchant_id, mode, id);
create index complaint_open on complaint (answer_by) where ended_at is null;

-- The negotiation, as the channel keeps it.
create table complaint_message (
    book         int         not null,
    complaint_id uuid        not null,
    channel_ref  text        not null,
    place        int         not null check (place >= 0), -- in the order the channel has them
    kind         text        not null,
    who          text        not null check (who in ('customer', 'merchant', 'channel')),
    text         text        not null,
    image_count  int         not null check (image_count >= 0),
    at           timestamptz not null,
    primary key (book, complaint_id, channel_ref)
);

-- What we tell the channel, each once: the channel has no key for it, so a second sending follows
-- only on proof from its own history that the first did not arrive.
create table complaint_reply (
    book         int         not null,
    id           uuid        not null,
    complaint_id uuid        not null,
    merchant_id  uuid        not null,
    mode         text        not null check (mode in ('live', 'sandbox')),
    kind         text        not null check (kind in ('reply', 'complete')),
    text         text        not null check (length(text) <= 500),
    state        text        not null check (state in
        ('requested', 'unknown', 'sent', 'refused')),
    code         text,
    sends        int         not null check (sends >= 0),
    sent_at      timestamptz, -- when the last sending began
    written_by   text        not null,
    created_at   timestamptz not null,
    ended_at     timestamptz,
    version      int         not null check (version > 0),
    primary key (book, id),
    check ((ended_at is null) = (state in ('requested', 'unknown'))),
    check (sends = 0 or sent_at is not null),
    check (kind = 'complete' or text <> '')
);
create index complaint_reply_of on complaint_reply (book, complaint_id, id);

create table complaint_exchange (
    book         int         not null,
    id           uuid        not null,
    complaint_id uuid        not null,
    purpose      text        not null,
    method       text        not null,
    url          text        not null,
    request      text        not null,
    status       int,
    reply        text        not null,
    duration_ms  int         not null,
    outcome      text        not null,
    at           timestamptz not null,
    primary key (book, id)
);
create index complaint_exchange_of on complaint_exchange (book, complaint_id, id);
