"""From alerts to incidents with a ranked cause: graph, grouping, root cause, impact."""
