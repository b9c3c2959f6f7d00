"""Exit codes, in the one place where they are set. 1 is a verdict on hardware and nothing else."""

from __future__ import annotations

from burnin.events import Word

PASS, FAIL, USAGE, HOLD, BROKEN, INTERRUPTED = 0, 1, 2, 3, 4, 130
"""BROKEN is burnin's own failure: a defect, or evidence that could not be kept."""


def of_word(word: Word) -> int:
    """The exit code that says a verdict."""
    return {Word.PASS: PASS, Word.FAIL: FAIL, Word.HOLD: HOLD}[word]


def worse(word: Word) -> Word:
    """The word when something more speaks against it: PASS becomes HOLD, the others stay."""
    return Word.HOLD if word is Word.PASS else word
