"""Lines of a Loki: `source` is what is polled, `api` asks for a range, `tail` hears by websocket."""
