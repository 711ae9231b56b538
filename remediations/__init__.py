"""One file a remediation. The YAML type `ScaleUp` is the class `ScaleUp` in `scale_up.py`."""
