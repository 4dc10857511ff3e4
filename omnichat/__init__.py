"""omnichat: multi-turn spoken-dialogue models that hear what is said, how, and what sounds behind it."""
