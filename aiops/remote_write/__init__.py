"""Prometheus remote-write, 1.0 and 2.0: from the body of a request to arrays of samples. No I/O, no clock.

`codec` says what a decoder is and finishes what both leave open, `reference` defines the behaviour in Python, `native` is the
same in Rust, `relabel` holds the rules that choose what is watched.
https://prometheus.io/docs/specs/prw/remote_write_spec/ and https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/
"""
