"""A Prometheus that is asked, or what speaks its API.

`source` is what is polled. Below it: `api` (which questions there are), `http` (how they are asked), `decode` (answers as
arrays), `series` (which series there are, and up to when each is read).
"""
