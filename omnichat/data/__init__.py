"""From corpora to batches: readers, stores, the mixed stream of dialogues, cached features, loaders."""
