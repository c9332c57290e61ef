-- What channels and institutions were asked when a merchant was registered is evidence like other
-- talks with them: it is erased when its term is over, digests aside.
insert into retention_term (kind, valid_from, days, because) values
    ('registration_exchange', '2021-11-01', 1096,
     '民法典第一百八十八条：诉讼时效三年；个人信息保护法第十九条：最短必要期限');
