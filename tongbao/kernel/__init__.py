"""Pure values every other layer speaks in: money, ids, time, refusals, pages. No I/O."""
