"""Tiny models, texts and studies that several tests use."""
