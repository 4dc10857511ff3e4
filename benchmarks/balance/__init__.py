"""How even the ranks of a step are in tokens: `python -m benchmarks.balance`."""
