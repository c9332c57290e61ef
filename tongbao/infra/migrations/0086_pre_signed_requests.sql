-- Requests that a partner has signed, and answers that we sign (FAPI 2.0 Message Signing).

-- Whether what it pushes has to be a request object (RFC 9101); what is not signed is refused then.
alter table partner add column signs_requests boolean not null default false;

-- How the browser brings the answer: as parameters, or as one token that we sign (JARM).
alter table authorisation
    add column response_mode text not null default 'query'
        check (response_mode in ('query', 'jwt'));
