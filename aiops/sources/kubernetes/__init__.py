"""A cluster: topology, changes, troubles, states, logs of pods.

`source` is what is polled. Below it, from the wire up: `api` and `lines` (HTTP), `wire`, `objects` and `workloads` (what is
decoded), `kinds` (what is followed and kept), `reflector` (a copy of one collection), `watch` (all of them, in a thread).
`links`, `changes`, `trouble` and `states` say what the differences mean; `podlogs` follows containers, each by a `stream`.
"""
