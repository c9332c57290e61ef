-- Who applied and never became a merchant is forgotten by rule; who became one is not.
insert into retention_term (kind, valid_from, days, because) values
    ('application', '2021-11-01', 1096,
     '民法典第一百八十八条：诉讼时效三年；个人信息保护法第十九条：最短必要期限');

-- A digest of 32 bytes stands where what was sealed is erased; nothing sealed is so short.
create index application_unopened on application (id)
    where state in ('draft', 'declined', 'withdrawn') and octet_length(personal_sealed) > 32;
