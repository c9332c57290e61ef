"""What some channels can be asked beyond collecting: each a contract of its own.

A channel says by having the methods that it can; whoever needs one asks `isinstance`. As in
`contract`, every call is safe to repeat with the same numbers, and its outcome is closed: what is
not positive evidence is `Unknown`.
"""
