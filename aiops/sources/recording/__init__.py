"""Recordings: `folder` reads one as batches, `about` its descriptions, `record` makes one of a Prometheus."""
