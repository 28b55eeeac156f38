"""Test-set evaluation: which networks, under which attacks, by which jobs."""
