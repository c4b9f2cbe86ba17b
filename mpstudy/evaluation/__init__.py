"""What a model is worth and what it costs: perplexity, zero-shot accuracy, size, memory, latency."""
