"""One reader for each corpus: its own layout on disk to dialogues."""
