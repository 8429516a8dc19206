"""What a trained click model says of the items of lists: an initial ranker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kar_aug.compare.book import BOOK, Book, Run
from kar_aug.compare.experiment import Experiment
from kar_aug.compare.exporting import sound_run
from kar_aug.compare.saved import restored
from kar_aug.compare.tasks import OnEvent
from kar_aug.compare.workers import do
from kar_aug.data.lists import IMPRESSION, SCORE, Lists
from kar_aug.data.split import SAMPLE_PARTS, is_sample
from kar_aug.pipeline.workspace import Workspace

_LONGEST = 1000  # items of a list


def score_lists(workspace: Workspace, arm: str, seed: int, path: Path) -> None:
    """Write impression_id, item_id and initial_score of all lists, by the model of an arm."""
    experiment, run = sound_run(workspace, workspace.config.compare.backbones[0], seed, arm)
    do([Scoring(run, path)], experiment, Book(experiment.folder / BOOK), 1, lambda event: None)


@dataclass(frozen=True)
class Scoring:
    """The task: to predict, and write what is predicted."""

    run: Run
    path: Path

    def wanted_keras(self) -> str:
        """That of the run."""
        return self.run.keras

    def work(self, experiment: Experiment, book: Book, on_event: OnEvent) -> None:
        """Build the model again; let it judge each item at its list's first moment."""
        from kar_aug.compare.models import input_names

        model, samples = restored(experiment, self.run), experiment.samples_of(self.run.arm, self.run.seed)
        lists, names = Lists(samples, _LONGEST), set(input_names(model))
        score = np.full(len(samples), np.nan)
        for part in SAMPLE_PARTS:
            for members, _ in lists.blocks(part):
                there = members >= 0
                found = model.predict(lists.as_samples(members, names), batch_size=8192, verbose=0)[:, 0]
                score[members[there]] = found.reshape(members.shape)[there]
        split = experiment.split(self.run.seed)
        rows = split.loc[is_sample(split), [IMPRESSION, "item_id"]]
        table: pd.DataFrame = rows.assign(**{SCORE: score}).dropna(subset=[SCORE])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(self.path, index=False)
