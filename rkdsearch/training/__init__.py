"""Training: one run as an iterator of epochs; the only layer that knows Accelerate."""
