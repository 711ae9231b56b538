"""A Prometheus that is asked, or what speaks its API.

`source` is what is polled. Below it: `api` (which questions there are), `http` (how they are asked), `errors` (what went
wrong, in words), `decode` (answers as arrays), `series` (which series there are, and up to when each is read), `pace` (how much
history is asked for at once).
"""
