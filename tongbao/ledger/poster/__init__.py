"""One writer for each book: it decides in memory, commits in groups and answers afterwards.

Read in this order:

    lane        the loop of one book: queue, decide, commit, answer; what a failure asks for
    calls       what callers ask, and the groups of several as one batch
    recall      what the memory is filled with, and the rehearsal of a posting
    commit      one group commit: who called, what is written, what each caller is told
    lease       taking a book, being fenced, and changes made past its writer
    projection  balances behind the journal, one piece of SQL for all who bring them up

The decision itself is pure and lies in `tongbao.ledger.decision`; what comes before it, names and
repeats and companions, in `tongbao.ledger.door`.
"""
