"""This machine: `source` is what is polled, `processes` adds up who uses it."""
