"""Trials, teachers and test evaluation on Ray. Only this package imports Ray."""
