"""Training: one run as an iterator of epochs; the only floor that knows Accelerate."""
