"""Engines: the same two apps, in this process, on Ray actors, or on Flower's own engine."""
