-- Taking merchants on: applications with their documents, the terms they sign, what becomes of them
-- at the channels; who sells for us; a merchant's stores and people; and its standing with us.

-- suspended: no new payments. held: no refunds it asks for, no payouts. stopped: neither.
-- leaving: no new payments, refunds go on, payouts wait for the reserve's date. gone: nothing.
alter table merchant drop constraint merchant_state_check;
alter table merchant add constraint merchant_state_check
    check (state in ('active', 'suspended', 'held', 'stopped', 'leaving', 'gone'));

-- Who changed a merchant's standing, when and why: the row of the merchant is the last line of it.
create table merchant_standing (
    owner_id       uuid not null references merchant (id),
    version        int not null check (version > 0),
    state          text not null check (state in ('active', 'suspended', 'held', 'stopped',
                                                  'leaving', 'gone')),
    because        text not null check (length(because) between 1 and 500),
    reserve_until  date,             -- leaving: payouts wait until then
    changed_by     text not null check (changed_by <> ''),
    changed_at     timestamptz not null,
    primary key (owner_id, version),
    check ((state = 'leaving') = (reserve_until is not null))
);

-- Who sells for us. Depth and share of the parent are in the key a child names, so a chain cannot
-- be too long, cannot close on itself, and cannot give away more than its first member has.
create table agent (
    id                uuid primary key,
    merchant_id       uuid not null references merchant (id),
    mode              text not null check (mode in ('live', 'sandbox')),
    name              text not null check (length(name) between 1 and 128),
    parent_id         uuid,
    depth             int not null check (depth between 1 and 5),
    parent_depth      int,
    share_ppm         int not null check (share_ppm between 0 and 1000000),
    parent_share_ppm  int,
    state             text not null check (state in ('active', 'ended')),
    version           int not null check (version > 0),
    created_at        timestamptz not null,
    unique (merchant_id, mode),
    unique (id, mode, depth, share_ppm),
    foreign key (parent_id, mode, parent_depth, parent_share_ppm)
        references agent (id, mode, depth, share_ppm) on update cascade,
    check ((parent_id is null) = (depth = 1)),
    check ((parent_id is null) = (parent_depth is null)),
    check ((parent_id is null) = (parent_share_ppm is null)),
    check (parent_id <> id),
    constraint agent_depth check (depth = coalesce(parent_depth, 0) + 1),
    constraint agent_share check (share_ppm <= coalesce(parent_share_ppm, 1000000))
);
create index agent_by_parent on agent (parent_id) where parent_id is not null;

-- What was agreed with an agent from when on: commissions are worked out again from this.
create table agent_term (
    agent_id    uuid not null references agent (id),
    version     int not null check (version > 0),
    parent_id   uuid,
    share_ppm   int not null check (share_ppm between 0 and 1000000),
    valid_from  timestamptz not null,
    set_by      text not null check (set_by <> ''),
    primary key (agent_id, version)
);

-- Who brought a merchant, from when on; null: nobody any more.
create table agent_merchant (
    merchant_id  uuid not null references merchant (id),
    mode         text not null check (mode in ('live', 'sandbox')),
    version      int not null check (version > 0),
    agent_id     uuid references agent (id),
    valid_from   timestamptz not null,
    set_by       text not null check (set_by <> ''),
    primary key (merchant_id, mode, version)
);
create index agent_merchant_by_agent on agent_merchant (agent_id) where agent_id is not null;

-- `merchant_id` is who applies for another: an agent's program, with its key. What identifies a
-- person is sealed; the blind indexes find the same number again without saying it.
create table application (
    id                  uuid primary key,
    merchant_id         uuid not null references merchant (id),
    mode                text not null check (mode in ('live', 'sandbox')),
    application_no      text not null check (length(application_no) between 1 and 64),
    state               text not null check (state in ('draft', 'submitted', 'forwarded', 'opened',
                                                       'declined', 'withdrawn')),
    form                jsonb not null check (jsonb_typeof(form) = 'object'),
    masked              jsonb not null check (jsonb_typeof(masked) = 'object'),
    personal_sealed     bytea not null,
    credit_blind        bytea not null check (length(credit_blind) = 32),
    person_blind        bytea not null check (length(person_blind) = 32),
    account_blind       bytea not null check (length(account_blind) = 32),
    findings            jsonb not null check (jsonb_typeof(findings) = 'array'),
    note                text check (length(note) <= 500),
    version             int not null check (version > 0),
    opened_merchant_id  uuid references merchant (id),
    key_id              uuid references api_key (id),
    key_shown_at        timestamptz,
    created_at          timestamptz not null,
    submitted_at        timestamptz,
    ended_at            timestamptz,
    unique (merchant_id, mode, application_no),
    unique (opened_merchant_id),
    check ((state in ('opened', 'forwarded')) = (opened_merchant_id is not null)),
    check ((state in ('opened', 'declined', 'withdrawn')) = (ended_at is not null)),
    check (state = 'withdrawn' or (state = 'draft') = (submitted_at is null) or state = 'draft'),
    check (key_shown_at is null or key_id is not null)
);
create index application_by_state on application (state, id);
create index application_by_credit on application (credit_blind, mode);
create index application_by_person on application (person_blind, mode);
create index application_by_account on application (account_blind, mode);
-- One firm is taken on once in each world: two approvals at the same moment cannot both be.
create unique index application_opened_once on application (credit_blind, mode)
    where state in ('opened', 'forwarded');

create table application_document (
    id              uuid primary key,
    application_id  uuid not null references application (id),
    merchant_id     uuid not null,
    mode            text not null check (mode in ('live', 'sandbox')),
    kind            text not null check (kind in ('business_license', 'legal_id_front',
                        'legal_id_back', 'store_front', 'store_inside', 'bank_permit',
                        'qualification')),
    media_type      text not null check (media_type in
        ('image/jpeg', 'image/png', 'application/pdf')),
    size            int not null check (size between 1 and 10485760),
    sha256          bytea not null check (length(sha256) = 32),
    blob_key        text not null check (blob_key <> ''),
    added_at        timestamptz not null,
    added_by        text not null check (added_by <> ''),
    replaced_at     timestamptz
);
create unique index application_document_one on application_document (application_id, kind)
    where replaced_at is null;
create index application_document_of on application_document (application_id, id);

-- One application at one channel, and what the channel made of it. `number` is ours there.
create table registration (
    id                  uuid primary key,
    application_id      uuid not null references application (id),
    merchant_id         uuid not null references merchant (id),
    mode                text not null check (mode in ('live', 'sandbox')),
    channel             text not null check (channel <> ''),
    account_id          uuid,
    number              text not null unique check (length(number) between 1 and 64),
    state               text not null check (state in ('waiting', 'asked', 'auditing', 'verifying',
                            'signing', 'opening', 'finished', 'rejected', 'canceled', 'manual')),
    channel_ref         text,
    sub_merchant        text,
    action_url          text,
    reasons             jsonb not null check (jsonb_typeof(reasons) = 'array'),
    connected_id        uuid,        -- our account at the channel that the sub-merchant became
    sends               int not null check (sends >= 0),
    queries             int not null check (queries >= 0),
    version             int not null check (version > 0),
    created_at          timestamptz not null,
    ended_at            timestamptz,
    unique (application_id, channel),
    check ((state = 'finished') = (sub_merchant is not null)),
    check ((state in ('finished', 'canceled')) = (ended_at is not null)),
    check (state = 'rejected' or reasons = '[]'::jsonb)
);
create index registration_by_state on registration (state, id);

create table registration_exchange (
    id               uuid primary key,
    registration_id  uuid not null references registration (id),
    purpose          text not null check (purpose in ('register', 'query')),
    method           text not null,
    url              text not null,
    request          text not null,
    status           int,
    reply            text not null,
    duration_ms      int not null,
    outcome          text not null,
    at               timestamptz not null
);
create index registration_exchange_of on registration_exchange (registration_id, id);

create table store (
    id            uuid primary key,
    merchant_id   uuid not null references merchant (id),
    mode          text not null check (mode in ('live', 'sandbox')),
    store_no      text not null check (length(store_no) between 1 and 64),
    name          text not null check (length(name) between 1 and 128),
    area_code     text not null check (area_code ~ '^\d{6}$'),
    address       text not null check (length(address) between 1 and 256),
    -- Millionths of a degree.
    latitude      int check (latitude between -90000000 and 90000000),
    longitude     int check (longitude between -180000000 and 180000000),
    state         text not null check (state in ('open', 'closed')),
    version       int not null check (version > 0),
    created_at    timestamptz not null,
    unique (merchant_id, mode, store_no),
    check ((latitude is null) = (longitude is null))
);

create table staff (
    id            uuid primary key,
    merchant_id   uuid not null references merchant (id),
    mode          text not null check (mode in ('live', 'sandbox')),
    role          text not null check (role in ('owner', 'manager', 'cashier', 'accountant')),
    every_store   boolean not null,
    name_masked   text not null,
    phone_masked  text not null,
    sealed        bytea not null,
    phone_blind   bytea not null check (length(phone_blind) = 32),
    state         text not null check (state in ('active', 'left')),
    version       int not null check (version > 0),
    created_at    timestamptz not null,
    left_at       timestamptz,
    check ((state = 'left') = (left_at is not null))
);
create unique index staff_phone_once on staff (merchant_id, mode, phone_blind)
    where state = 'active';
create index staff_by_merchant on staff (merchant_id, mode, id);

-- Where somebody works who does not work everywhere.
create table staff_store (
    staff_id  uuid not null references staff (id),
    store_id  uuid not null references store (id),
    primary key (staff_id, store_id)
);

-- Terms are agreed with whoever settles: an aggregator signs nothing with merchants (银发〔2017〕45号),
-- and pays no commission out of fees it does not keep.
do $$
begin
    if (select licence from deployment where id = 1) = 'aggregator' then
        return;
    end if;

    create table merchant_term (
        version       int primary key check (version > 0),
        title         text not null check (length(title) between 1 and 200),
        sha256        bytea not null unique check (length(sha256) = 32),
        content       text not null check (length(content) between 1 and 200000),
        in_force_from timestamptz not null,
        published_by  text not null check (published_by <> ''),
        published_at  timestamptz not null
    );

    create table term_signature (
        application_id  uuid not null references application (id),
        version         int not null references merchant_term (version),
        merchant_id     uuid not null,
        mode            text not null check (mode in ('live', 'sandbox')),
        sha256          bytea not null check (length(sha256) = 32),
        signer_masked   text not null check (signer_masked <> ''),
        signer_sealed   bytea not null,
        evidence        jsonb not null check (jsonb_typeof(evidence) = 'object'),
        signed_by       text not null check (signed_by <> ''),
        signed_at       timestamptz not null,
        primary key (application_id, version)
    );

    -- What agents get of a merchant's fees, run by run: each follows the one before, so that two at
    -- once cannot count a fee twice. What a refund takes back and the run did not earn is carried
    -- into the next, so nothing posted is ever negative.
    create table commission_run (
        book          int not null check (book > 0),
        id            uuid not null,
        merchant_id   uuid not null,     -- who paid the fees
        mode          text not null check (mode in ('live', 'sandbox')),
        currency      text not null check (currency ~ '^[A-Z]{3}$'),
        after_seq     bigint not null check (after_seq >= 0),
        through_seq   bigint not null,
        created_at    timestamptz not null,
        primary key (book, id),
        unique (book, merchant_id, mode, currency, after_seq),
        check (through_seq > after_seq)
    );

    create table commission (
        book          int not null check (book > 0),
        id            uuid not null,
        run_id        uuid not null,
        agent_id      uuid not null,
        merchant_id   uuid not null,     -- the agent's own, which is paid
        payer_id      uuid not null,
        mode          text not null check (mode in ('live', 'sandbox')),
        currency      text not null check (currency ~ '^[A-Z]{3}$'),
        earned        bigint not null,
        carried_in    bigint not null check (carried_in <= 0),
        posted        bigint not null check (posted >= 0),
        carried_out   bigint not null check (carried_out <= 0),
        created_at    timestamptz not null,
        primary key (book, id),
        unique (book, run_id, agent_id),
        foreign key (book, run_id) references commission_run (book, id),
        check (earned + carried_in = posted + carried_out),
        check (posted = 0 or carried_out = 0)
    );
    create index commission_of_merchant on commission (merchant_id, mode, id);
    create index commission_of_pair on commission (book, agent_id, payer_id, currency, id);

    create table commission_line (
        book           int not null,
        commission_id  uuid not null,
        seq            bigint not null,  -- of the fee's transfer
        reference      uuid not null,    -- the payment or refund
        fee            bigint not null,  -- negative: given back
        share_ppm      int not null check (share_ppm between 0 and 1000000),
        passed_ppm     int not null check (passed_ppm between 0 and share_ppm),
        amount         bigint not null,
        at             timestamptz not null,
        primary key (book, commission_id, seq),
        foreign key (book, commission_id) references commission (book, id)
    );
end
$$;
