"""Files that are whole or absent, digests, and computed results kept by content."""
