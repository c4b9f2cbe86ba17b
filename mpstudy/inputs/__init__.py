"""What goes in: models, texts, hub data sets, and the manifest that checks the fetched files."""
