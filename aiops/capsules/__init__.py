"""Capsules: what came in around one incident, cut out of the journal as a recording that replays to the same incident.

`cut` reads the slice, `write` puts it into a folder, `learned` adds what was known of these series before, `play` replays it,
`archive` packs and unpacks it, `redact` takes the names out. `python -m aiops.capsules JOB` makes one.
"""
