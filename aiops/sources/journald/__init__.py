"""The journal of systemd."""
