-- From which amount on an act takes two who agree beside whoever proposed it, as dated rows.

-- Rows are only added: of an act and a currency the newest that has begun counts.
create table second_check (
    act          text        not null check (length(act) between 1 and 64),
    currency     text        not null check (currency ~ '^[A-Z]{3}$'),
    valid_from   date        not null,
    amount_from  bigint      check (amount_from > 0),  -- none: from now on one is enough
    known_from   timestamptz not null,
    approval_id  uuid        not null,
    primary key (act, currency, valid_from, known_from)
);
revoke update, delete, truncate on second_check from current_user;

-- The first of two who agree; the second is the approval's checker.
create table approval_agreement (
    approval_id  uuid        not null primary key references approval (id),
    checker      text        not null check (checker <> ''),
    agreed_at    timestamptz not null,
    note         text        check (length(note) <= 500)
);
revoke update, delete, truncate on approval_agreement from current_user;
