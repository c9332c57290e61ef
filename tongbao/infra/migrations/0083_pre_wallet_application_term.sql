-- A merchant's name for a user who never opened a wallet is nobody's evidence: it goes by rule.
insert into retention_term (kind, valid_from, days, because) values
    ('wallet_application', '2021-11-01', 1096,
     '民法典第一百八十八条：诉讼时效三年；个人信息保护法第十九条：最短必要期限');

do $$
begin
    if to_regclass('wallet_application') is not null then
        create index wallet_application_unopened on wallet_application (id)
            where state in ('refused', 'expired') and user_ref not like 'erased:%';
    end if;
end
$$;
