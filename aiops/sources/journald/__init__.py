"""The journal of systemd: `source` runs journalctl and follows it, `entries` says what a line of its JSON means."""
