-- People: users of the licensed firm itself, not of a merchant. Who they are, how they prove it,
-- which phones are theirs, what they agreed to, and the messages they are sent.

-- A message on its way. Its text and where it goes are sealed, and gone once it is sent.
create table notification (
    id          uuid primary key,
    mode        text not null check (mode in ('live', 'sandbox')),
    kind        text not null check (kind in ('sms', 'mail', 'push')),
    purpose     text not null check (purpose <> ''),
    subject     uuid,                -- the person, where it goes to one
    sealed      bytea,
    state       text not null check (state in ('waiting', 'sent', 'refused', 'given_up')),
    reference   text check (length(reference) <= 128),
    created_at  timestamptz not null,
    ended_at    timestamptz,
    check ((state = 'waiting') = (ended_at is null)),
    check ((state = 'waiting') = (sealed is not null))
);
create index notification_of on notification (subject, id) where subject is not null;

-- `failures` and `locked_until` (real time) count tries before they are judged.
create table person (
    id               uuid primary key,
    mode             text not null check (mode in ('live', 'sandbox')),
    state            text not null check (state in ('active', 'suspended', 'erased')),
    language         text not null check (language in ('zh', 'en')),
    real_name_level  int not null check (real_name_level between 0 and 3),
    failures         int not null check (failures >= 0),
    locked_until     timestamptz,
    created_at       timestamptz not null,
    erased_at        timestamptz,
    check ((state = 'erased') = (erased_at is not null))
);

-- What is sealed of a person opens with one of two keys of their own. Erasing them forgets the
-- first; what the law has kept stays readable under the second until its time is over.
create table person_key (
    person_id  uuid not null references person (id),
    kind       text not null check (kind in ('own', 'kept')),
    sealed     bytea not null,
    primary key (person_id, kind)
);

create table person_contact (
    person_id  uuid not null references person (id),
    mode       text not null check (mode in ('live', 'sandbox')),
    kind       text not null check (kind in ('phone', 'mail')),
    blind      bytea not null check (length(blind) = 32),
    masked     text not null check (masked <> ''),
    sealed     bytea not null,
    proved_at  timestamptz not null,
    primary key (person_id, kind),
    unique (mode, blind)
);

create table person_device (
    id          uuid primary key,
    person_id   uuid not null references person (id),
    name        text not null check (length(name) between 1 and 64),
    key_kind    text not null check (key_kind in ('ed25519', 'ecdsa-p256-sha256', 'sm2-sm3')),
    public_key  bytea not null check (length(public_key) between 32 and 128),
    state       text not null check (state in ('active', 'removed')),
    bound_at    timestamptz not null,
    removed_at  timestamptz,
    check ((state = 'removed') = (removed_at is not null))
);
create unique index person_device_once on person_device (person_id, public_key)
    where state = 'active';

-- Opaque sessions: the token is known to the phone only. All times but `opened_at` are real.
create table person_session (
    token_hash  bytea primary key check (length(token_hash) = 32),
    person_id   uuid not null references person (id),
    device_id   uuid not null references person_device (id),
    methods     text[] not null check (cardinality(methods) > 0),
    opened_at   timestamptz not null,
    seen_at     timestamptz not null,
    expires_at  timestamptz not null
);
create index person_session_of on person_session (person_id);

-- Texts that people agree to, by version; a text is never changed, only followed by another.
create table consent_text (
    kind          text not null check (kind ~ '^[a-z_]{1,32}$'),
    version       int not null check (version > 0),
    language      text not null check (language in ('zh', 'en')),
    title         text not null check (length(title) between 1 and 128),
    body          text not null check (length(body) between 1 and 65536),
    sha256        bytea not null check (length(sha256) = 32),
    is_required   boolean not null,
    published_at  timestamptz not null,
    published_by  text not null check (published_by <> ''),
    primary key (kind, version, language)
);

create table person_consent (
    id            uuid primary key,
    person_id     uuid not null references person (id),
    kind          text not null,
    version       int not null,
    language      text not null,
    sha256        bytea not null check (length(sha256) = 32),
    given_at      timestamptz not null,
    withdrawn_at  timestamptz,
    foreign key (kind, version, language) references consent_text (kind, version, language)
);
create unique index person_consent_once on person_consent (person_id, kind, version)
    where withdrawn_at is null;

-- Who a person is by law. One resident id is one person of ours in each world.
create table person_identity (
    person_id      uuid primary key references person (id),
    mode           text not null check (mode in ('live', 'sandbox')),
    blind          bytea not null check (length(blind) = 32),
    name_masked    text not null check (name_masked <> ''),
    number_masked  text not null check (number_masked <> ''),
    sealed         bytea not null,
    face_to_face   boolean not null,
    given_at       timestamptz not null,
    unique (mode, blind)
);

-- One question to one outside register, and its answer: unknown is neither yes nor no.
create table real_name_check (
    id           uuid primary key,
    person_id    uuid not null references person (id),
    source       text not null check (source <> ''),
    verdict      text check (verdict in ('same', 'different', 'unknown')),
    reference    text check (length(reference) <= 128),
    asked_at     timestamptz not null,
    answered_at  timestamptz,
    check ((verdict is null) = (answered_at is null))
);
create index real_name_check_of on real_name_check (person_id, id);

-- How many registers must agree for a level, from when on, and which article says so.
create table real_name_rule (
    level        int not null check (level between 1 and 3),
    valid_from   date not null,
    sources_min  int not null check (sources_min > 0),
    instrument   text not null check (instrument <> ''),
    primary key (level, valid_from)
);
insert into real_name_rule (level, valid_from, sources_min, instrument) values
    (1, '2016-07-01', 1, '中国人民银行公告〔2015〕第43号 第十一条：Ⅰ类，至少一个外部渠道'),
    (2, '2016-07-01', 3, '中国人民银行公告〔2015〕第43号 第十一条：Ⅱ类，面对面或至少三个外部渠道'),
    (3, '2016-07-01', 5, '中国人民银行公告〔2015〕第43号 第十一条：Ⅲ类，面对面或至少五个外部渠道');

-- How long what the law wants kept is kept after the end, from when on, and which law says so.
create table retention_rule (
    kind        text not null check (kind <> ''),
    valid_from  date not null,
    years       int not null check (years > 0),
    instrument  text not null check (instrument <> ''),
    primary key (kind, valid_from)
);
insert into retention_rule (kind, valid_from, years, instrument) values
    ('identity', '2007-01-01', 5, '中华人民共和国反洗钱法（2006）第十九条：至少五年'),
    ('identity', '2025-01-01', 10, '中华人民共和国反洗钱法（2024年修订）：至少十年');

-- Ways to prove who somebody is. `owner_id` is a person or an operator.

create table password (
    owner_id  uuid primary key,
    hash      text not null check (hash <> ''),
    set_at    timestamptz not null
);

create table password_before (
    owner_id  uuid not null,
    set_at    timestamptz not null,
    hash      text not null check (hash <> ''),
    primary key (owner_id, set_at)
);

-- A code sent in a message, for one purpose and, where it confirms an act, for that act alone.
create table message_code (
    id           uuid primary key,
    mode         text not null check (mode in ('live', 'sandbox')),
    blind        bytea not null check (length(blind) = 32),
    purpose      text not null check (purpose <> ''),
    act_digest   bytea check (length(act_digest) = 32),
    code_hash    bytea not null check (length(code_hash) = 32),
    tries        int not null check (tries >= 0),
    created_at   timestamptz not null,
    expires_at   timestamptz not null,
    used_at      timestamptz
);
create index message_code_by_end on message_code (expires_at);

create table code_allowance (
    subject    bytea not null check (length(subject) = 32),
    period_s   int not null check (period_s > 0),
    starts_at  timestamptz not null,
    used       int not null check (used > 0),
    primary key (subject, period_s, starts_at)
);

-- TOTP, HOTP and OCRA. `moved` is the last step or counter that was used: it only grows.
create table authenticator (
    id          uuid primary key,
    owner_id    uuid not null,
    kind        text not null check (kind in ('totp', 'hotp', 'ocra')),
    suite       text,
    name        text not null check (length(name) between 1 and 64),
    sealed      bytea not null,
    moved       bigint not null check (moved >= -1),
    state       text not null check (state in ('new', 'active', 'ended')),
    created_at  timestamptz not null,
    check ((kind = 'ocra') = (suite is not null))
);
create index authenticator_of on authenticator (owner_id, id);

create table passkey (
    id               uuid primary key,
    owner_id         uuid not null,
    credential_id    bytea not null unique check (length(credential_id) between 1 and 1023),
    public_key       bytea not null,
    sign_count       bigint not null check (sign_count >= 0),
    may_be_backed_up boolean not null,
    is_backed_up     boolean not null,
    name             text not null check (length(name) between 1 and 64),
    aaguid           text not null,
    state            text not null check (state in ('active', 'suspect', 'ended')),
    created_at       timestamptz not null,
    used_at          timestamptz
);
create index passkey_of on passkey (owner_id, id);

-- A question that a passkey, a token or a certificate answers once, within minutes of real time.
create table challenge (
    id          uuid primary key,
    owner_id    uuid,
    purpose     text not null check (purpose <> ''),
    nonce       bytea not null check (length(nonce) = 32),
    act_digest  bytea check (length(act_digest) = 32),
    expires_at  timestamptz not null,
    used_at     timestamptz
);
create index challenge_by_end on challenge (expires_at);

create table certificate_anchor (
    id           uuid primary key,
    name         text not null check (name <> ''),
    fingerprint  bytea not null unique check (length(fingerprint) = 32),
    der          bytea not null,
    crl_der      bytea,
    crl_until    timestamptz,
    added_at     timestamptz not null,
    added_by     text not null check (added_by <> ''),
    ended_at     timestamptz,
    check ((crl_der is null) = (crl_until is null))
);

create table client_certificate (
    id           uuid primary key,
    owner_id     uuid not null,
    fingerprint  bytea not null check (length(fingerprint) = 32),
    chain        bytea[] not null check (cardinality(chain) between 1 and 5),
    serial_number text not null check (serial_number <> ''),
    not_after    timestamptz not null,
    state        text not null check (state in ('active', 'ended')),
    bound_at     timestamptz not null
);
create unique index client_certificate_once on client_certificate (fingerprint)
    where state = 'active';
create index client_certificate_of on client_certificate (owner_id, id);

-- How strongly an act is confirmed that moves at least so much: once, or in a day with the others.
create table step_up_rule (
    kind        text not null check (kind ~ '^[a-z_.]{1,64}$'),
    currency    text not null check (currency ~ '^[A-Z]{3}$|^$'),
    at_least    bigint not null check (at_least >= 0),
    level       int not null check (level between 0 and 3),
    valid_from  date not null,
    instrument  text not null check (instrument <> ''),
    primary key (kind, currency, at_least, valid_from)
);
insert into step_up_rule (kind, currency, at_least, level, valid_from, instrument) values
    ('transfer', 'CNY', 0, 1, '2016-07-01',
        'JR/T 0068-2020：资金类交易须再次确认；本平台设定'),
    ('transfer', 'CNY', 100001, 2, '2016-07-01',
        '中国人民银行公告〔2015〕第43号 第二十四条：不足两类要素，单日累计1000元以内'),
    ('transfer', 'CNY', 500001, 3, '2016-07-01',
        '中国人民银行公告〔2015〕第43号 第二十四条：两类要素但无证书或电子签名，单日累计5000元以内'),
    ('payment', 'CNY', 0, 0, '2016-07-01', '本平台设定'),
    ('payment', 'CNY', 100001, 2, '2016-07-01',
        '中国人民银行公告〔2015〕第43号 第二十四条：不足两类要素，单日累计1000元以内'),
    ('payment', 'CNY', 500001, 3, '2016-07-01',
        '中国人民银行公告〔2015〕第43号 第二十四条：两类要素但无证书或电子签名，单日累计5000元以内'),
    ('security', '', 0, 2, '2026-01-01', 'OWASP ASVS 5.0.0 7.5.1、7.5.3；本平台设定'),
    ('personal', '', 0, 1, '2026-01-01', 'OWASP ASVS 5.0.0 7.5.1；本平台设定');

-- One act of one session that waits to be confirmed, is confirmed, and is then done once.
create table confirmation (
    id            uuid primary key,
    owner_id      uuid not null,
    session_hash  bytea not null check (length(session_hash) = 32),
    act_digest    bytea not null check (length(act_digest) = 32),
    act           jsonb not null check (jsonb_typeof(act) = 'object'),
    level         int not null check (level between 1 and 3),
    proved        text[] not null,
    tries         int not null check (tries >= 0),
    created_at    timestamptz not null,
    expires_at    timestamptz not null,
    used_at       timestamptz
);
create unique index confirmation_waiting on confirmation (session_hash, act_digest)
    where used_at is null;
create index confirmation_by_end on confirmation (expires_at);
