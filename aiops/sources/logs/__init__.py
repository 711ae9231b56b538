"""Log files: `source` follows patterns of paths, `tail` one file; `lines` and `stamps` say what was logged, and when."""
