"""From a model to a smaller one: families, prunable units, scores, plans, surgery, checkpoints."""
