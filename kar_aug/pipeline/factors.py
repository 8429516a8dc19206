"""Factors of a scenario that a language model proposes and an expert decides."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd

from kar_aug._helpers.files import write_atomic
from kar_aug._helpers.printed import Printed
from kar_aug.errors import ConfigError
from kar_aug.generate.factors import Proposal, propose, with_factors
from kar_aug.pipeline.generation import Job, served
from kar_aug.pipeline.workspace import Workspace
from kar_aug.prompts import Scenario, scenario_names, scenario_text


@dataclass(frozen=True)
class Proposed(Printed):
    """Factors by votes of the model's samples.

    Args:
        before: the scenario's factors until now.
        path: the user's own file of the scenario, and `content`, what is to stand in it but for the factors.
    """

    proposals: Sequence[Proposal]
    samples: int
    model: str
    before: tuple[str, ...]
    path: Path
    content: str

    @property
    def frame(self) -> pd.DataFrame:
        """A row a proposal: factor, votes, rank, in_scenario."""
        rows = [(each.factor, each.votes, each.rank, each.factor in self.before) for each in self.proposals]
        return pd.DataFrame(rows, columns=pd.Index(["factor", "votes", "rank", "in_scenario"]))

    def decide(self, factors: Sequence[str], *, by: str | None = None) -> Path:
        """Write these factors into the scenario's file, with a record of who proposed and who decided; the file.

        Args:
            by: who decides; the user of this computer if None.

        Raises:
            PromptError: There is no list of factors in the file.
        """
        by, day = by or getpass.getuser(), str(date.today())
        content = with_factors(
            self.content, factors, self.proposals, by=by, model=self.model, samples=self.samples, day=day
        )
        write_atomic(self.path, content)
        Scenario.load(self.path)  # says so at once, should something be wrong with them
        return self.path

    def __str__(self) -> str:
        return "\n".join(f"{each.factor}: {each.votes} of {self.samples}" for each in self.proposals)


def propose_factors(workspace: Workspace, *, samples: int = 5) -> Proposed:
    """Ask for the factors that decide preference in the scenario's domain.

    Raises:
        ConfigError: The scenario is one of kar-aug, and there is a file of its name beside kar.toml already.
        GenerationError: The model cannot be asked, or no sample names a factor.
    """
    job, scenario = Job(workspace), workspace.asking.scenario
    path, content = _file_of(workspace)
    with workspace.paths.open_cache() as cache, served(job.model) as (model, key):
        proposals = propose(scenario, cache, model, samples=samples, key=key, prices=job.prices())
    return Proposed(proposals, samples, job.model.model, scenario.factors, path, content)


def _file_of(workspace: Workspace) -> tuple[Path, str]:
    """The user's own file of the scenario, and what is to stand in it: for a scenario of kar-aug, a copy."""
    name = workspace.config.prompts.scenario
    if name not in scenario_names():
        path = workspace.config.path(name)
        scenario_text(path)  # says so if it cannot be read
        return path, path.read_bytes().decode()  # with its line ends
    path = workspace.config.path(f"{name}.toml")
    if path.exists():
        raise ConfigError(f"{path} is there already. To change it, give --scenario {path.name}")
    return path, scenario_text(name)
