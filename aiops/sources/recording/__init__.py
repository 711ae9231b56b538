"""Recordings: `folder` reads one as batches, `record` makes one of a Prometheus."""
