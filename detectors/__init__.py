"""One file a detector: `detectors/<name>.py` holds a class of that name in CamelCase.

Each scores a frame first and learns from it afterwards, in event time, with memory bounded per signal.
"""
