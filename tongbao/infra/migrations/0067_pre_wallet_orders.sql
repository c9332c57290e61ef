-- Money between a person's own wallets and their electronic accounts, as orders of the account:
-- `payee_id` is then the wallet, on whichever side it is.
alter table e_account_order drop constraint e_account_order_kind_check;
alter table e_account_order add constraint e_account_order_kind_check
    check (kind in ('top_up', 'withdrawal', 'transfer', 'from_wallet', 'to_wallet'));
alter table e_account_order drop constraint e_account_order_check;
alter table e_account_order add constraint e_account_order_names_the_other_side
    check ((kind in ('transfer', 'from_wallet', 'to_wallet')) = (payee_id is not null));
