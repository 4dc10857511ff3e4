"""A trained run on held-out dialogues, in three stages: generate replies, score them, write the report."""
