"""How a search space is written, checked and sampled."""
