"""Measure all three, one after the other: some minutes on a quiet machine."""

from . import recovery, sparse, steps

for part in (steps, recovery, sparse):
    part.main()
