"""The kill drill: `python -m benchmarks.drill`."""
