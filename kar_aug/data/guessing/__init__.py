"""What a person's files are: which table each is, what its columns hold, and what models may read of them.

guess       all of it, as settings of [data] with what was seen      guesses     what that is
roles       files as tables, ids, times                               seen        a column, looked at
clicks      what a click is                                           words       what people call things
features    what models may read of a column
"""

from __future__ import annotations

from kar_aug.data.guessing.guess import GENERAL, guess
from kar_aug.data.guessing.guesses import Guess, Guessed

__all__ = ["GENERAL", "Guess", "Guessed", "guess"]
