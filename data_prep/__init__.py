"""Corpora to stores: one sub-package or module per corpus, each run as `python -m data_prep.<name>`."""
