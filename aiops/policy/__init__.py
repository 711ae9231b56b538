"""Policies: from an incident to a decision with a reason. Pure: no clock, no I/O but reading the policy files."""
