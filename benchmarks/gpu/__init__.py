"""A training step at the paper's size on one GPU, with random weights: `python -m benchmarks.gpu`."""
