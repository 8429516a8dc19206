"""The search for learning rate, regularisation and dropout: on validation only, as many trials for every arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kar_aug.config import TrainingConfig
from kar_aug.errors import MissingDependencyError

if TYPE_CHECKING:
    from kar_aug.compare.book import Trial

# Name -> least, most, whether by factors. How many epochs: every trial stops early on validation.
SPACE: Mapping[str, tuple[float, float, bool]] = {
    "learning_rate": (3e-4, 1e-2, True),
    "l2_embedding": (1e-7, 1e-3, True),
    "dropout": (0.0, 0.5, False),
}


def proposal(settings: TrainingConfig, finished: Sequence[Trial]) -> dict[str, float]:
    """Settings of the next trial of an arm: first those of kar.toml, then what Optuna's TPE proposes.

    It depends on the finished trials alone, so that a search that was killed goes on as if it had not been.
    """
    if not finished:
        return {name: float(getattr(settings, name)) for name in SPACE}
    try:
        import optuna
    except ImportError:
        raise MissingDependencyError("optuna", "tune") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {
        name: optuna.distributions.FloatDistribution(*_widened(name, finished), log=SPACE[name][2]) for name in SPACE
    }
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=len(finished)))
    for trial in finished:
        value = trial.auc if math.isfinite(trial.auc) else 0.0
        study.add_trial(optuna.trial.create_trial(params=dict(trial.settings), distributions=dict(space), value=value))
    chosen: dict[str, Any] = study.ask(fixed_distributions=dict(space)).params
    return {name: float(chosen[name]) for name in SPACE}


def _widened(name: str, finished: Sequence[Trial]) -> tuple[float, float]:
    """The bounds, and what kar.toml says if that lies beyond them."""
    low, high, by_factors = SPACE[name]
    tried = [trial.settings[name] for trial in finished]
    if by_factors:
        tried = [value for value in tried if value > 0] or [low]
    return min(low, *tried), max(high, *tried)
