"""The networks: frozen encoders, windowed Q-Former, Mix-Former, language model, and the whole of them."""
