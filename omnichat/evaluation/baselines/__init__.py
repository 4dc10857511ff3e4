"""What a trained run is measured against: a constant reply, a recogniser before a language model, Qwen2-Audio."""
