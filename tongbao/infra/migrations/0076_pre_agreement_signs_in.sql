-- Where the customer is to sign an agreement: on a page, out of the merchant's app, or out of its
-- mini-program. Agreements of before were all offered on pages.
alter table agreement
    add column signs_in text not null default 'page'
        check (signs_in in ('page', 'app', 'mini_program'));
