"""What the pipeline itself costs, beside its engines and servers: `python -m data_prep.synthesis.benchmarks`."""
