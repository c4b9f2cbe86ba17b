"""Numbers with their uncertainty: estimates, intervals, tests and verdicts.

Values are finite numbers; a NaN or infinity raises a ``StudyError`` instead of travelling into a figure.
"""

from .estimate import Estimate, of_losses, of_mean, of_spread, of_strata, over_windows
from .pairs import of_pair_differences, of_pairs
from .significance import holm, mcnemar, paired_effect, paired_permutation_test
from .summary import bootstrap_ci, interval, summarise
from .verdict import Verdict, judge

__all__ = [
    "Estimate",
    "Verdict",
    "bootstrap_ci",
    "holm",
    "interval",
    "judge",
    "mcnemar",
    "of_losses",
    "of_mean",
    "of_pair_differences",
    "of_pairs",
    "of_spread",
    "of_strata",
    "over_windows",
    "paired_effect",
    "paired_permutation_test",
    "summarise",
]
