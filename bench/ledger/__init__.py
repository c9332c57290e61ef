"""How fast the ledger posts, beside two usual ways of doing it, in one run.

    python -m bench.ledger                   the whole table, some minutes
    python -m bench.ledger --quick           a first look
    python -m bench.ledger --soak 3600       5,000 a second for an hour
    python -m bench.ledger --recovery 10000000   how long until it answers again after kill -9

Every arm writes to the same PostgreSQL, started for the run with durability on, and is checked
after each workload: what was accepted is stored, the books balance, no account is below its floor.
"""
