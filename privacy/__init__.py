"""What a release costs: spends, ledgers, accounting, calibration and reconstruction bounds.

Imports numpy and scipy and nothing else of fedward, so that it can be read, tested and trusted by itself.
"""

from privacy.accounting import Epsilon, compose, epsilon, unit_epsilon
from privacy.calibration import noise_multiplier
from privacy.ledger import BudgetExhaustedError, Ledger, LedgerEntry, LedgerError, RepeatedRoundError
from privacy.no_prior import NoPriorBound, no_prior_bound
from privacy.release import Release, Spend
from privacy.robustness import participant_bound, reconstruction_bound

__all__ = [
    "BudgetExhaustedError",
    "Epsilon",
    "Ledger",
    "LedgerEntry",
    "LedgerError",
    "NoPriorBound",
    "Release",
    "RepeatedRoundError",
    "Spend",
    "compose",
    "epsilon",
    "no_prior_bound",
    "noise_multiplier",
    "participant_bound",
    "reconstruction_bound",
    "unit_epsilon",
]
