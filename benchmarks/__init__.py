"""What a Moreau step, a recovery and a pruned layer cost beside plain baselines: ``python -m benchmarks``."""
