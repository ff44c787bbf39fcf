"""Models that transformers and PEFT load, and what training stages do with them."""
