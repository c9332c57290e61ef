-- Whose an account is, said a second time when it is opened. The journal names accounts by number
-- only, so nothing in it would contradict an owner changed behind the ledger's back; this does.
create table ledger_opening (
    book         int not null,
    account      bigint not null check (account >> 40 = book),
    fingerprint  bytea not null check (length(fingerprint) = 32),
    primary key (book, account)
);
insert into ledger_opening (book, account, fingerprint)
select book, id,
       sha256(convert_to(
           concat_ws('/', book, id, kind, owner, currency, side,
                     (extract(epoch from opened_at) * 1000000)::bigint), 'UTF8'))
  from ledger_account;
revoke update, delete, truncate on ledger_opening from current_user;
