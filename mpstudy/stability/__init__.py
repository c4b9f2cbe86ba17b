"""How steady a pruning decision is: what changes before the scores are taken, and what stays of the mask."""

from .agreement import (
    chance_corrected_overlap,
    cut_margin,
    expected_jaccard,
    instability,
    jaccard,
    jaccard_by_key,
    kendall,
    kendall_by_key,
    overlap,
    relative_change,
    spearman,
    spearman_by_key,
)
from .changes import Change, by_pair, log_scores, mask_agreement, pair_agreement, scores_under

__all__ = [
    "Change",
    "by_pair",
    "chance_corrected_overlap",
    "cut_margin",
    "expected_jaccard",
    "instability",
    "jaccard",
    "jaccard_by_key",
    "kendall",
    "kendall_by_key",
    "log_scores",
    "mask_agreement",
    "overlap",
    "pair_agreement",
    "relative_change",
    "scores_under",
    "spearman",
    "spearman_by_key",
]
