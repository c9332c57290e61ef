-- How far a round has compared people's electronic accounts with the ledger.
alter table invariant_mark drop constraint invariant_mark_name_check;
alter table invariant_mark add constraint invariant_mark_name_check
    check (name in ('payments.new', 'payments.past', 'audit.new', 'audit.past', 'e_accounts.past'));
