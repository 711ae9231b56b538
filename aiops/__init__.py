"""aiops: anomaly detection, root cause and verified self-healing. Imports nothing, so that plug-ins may import `aiops.types`."""

__version__ = "0.1.0"
