"""NVIDIA GPUs of this machine.

`source` is what is polled. `gpu` is one of them: `probes` (what is asked), `mig` (its instances), `processes` (who works on it);
`events` is what the driver tells by itself.
"""
