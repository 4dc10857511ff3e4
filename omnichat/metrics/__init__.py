"""Metrics of replies: pure functions over lists, each with its signature and all it takes for an interval."""
