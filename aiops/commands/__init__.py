"""What each command does. Nothing heavy is imported before a command runs: `aiops --help` must be instant."""
