"""Training: the Lightning module, its callbacks, checkpoints and the feature store's filling."""
