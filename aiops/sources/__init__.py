"""Where telemetry comes from. One name in the configuration is one package or module of that name here, with its `Source`.

What they share: `supervisor` keeps one going, `access` says how a server is reached, `offsets` where reading went on. `own` is
the daemon itself. Settings are in `aiops/inputs.py`; `aiops/feeds.py` makes sources of them.
"""
