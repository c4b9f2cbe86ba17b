"""The calibration loss, the same at shifted weights, and the prox problem of its Moreau envelope."""
