"""Profiles of notebooks executed, fingerprinted, published and compared."""
