"""A trained network for other people: weights, model card, ONNX, RobustBench entry."""
