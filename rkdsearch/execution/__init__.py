"""Trials on Ray: the only layer that knows it."""
