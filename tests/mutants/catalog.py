"""Deliberate breakages of our own code, each with the tests that must notice: one small edit of one file.

A mutant whose text is no longer found exactly once is stale, and `make mutants` fails and says so.
"""

from mutants.storage import STORAGE
from mutants.training import TRAINING

MUTANTS = [*STORAGE, *TRAINING]
