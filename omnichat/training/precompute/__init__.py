"""The feature store: the frozen experts run once over every clip that a run will hear.

`fill`       what is encoded and written; `train.py` calls it too
`share`      the part of it that one process does
`__main__`   `python -m omnichat.training.precompute recipe=NAME [shard=I/N] [key=value ...]`
"""
