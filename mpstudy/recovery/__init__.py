"""LoRA recovery: examples in batches, settings, the training loop, the adapter."""
