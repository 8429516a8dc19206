"""The `kar-aug factors` command: factors that a language model proposes and an expert decides."""

from __future__ import annotations

import getpass
import sys
from datetime import date
from pathlib import Path
from typing import Any

import click

from kar_aug._files import write_atomic
from kar_aug.cli.progress import notes, results, table
from kar_aug.config import Config
from kar_aug.errors import ConfigError
from kar_aug.pipeline.workspace import Workspace
from kar_aug.prompts import Scenario, scenario_names, scenario_text

_HELP = """\
# Factors of the scenario, one a line, in the order in which they are asked about.
# Delete, change, move or add lines; save and close. What begins with # is no factor.
"""


@click.command()
@click.option("--scenario", help="Of which scenario: a name or a .toml file.  [default: that of kar.toml]")
@click.option("--samples", type=click.IntRange(1), default=5, show_default=True, help="How often the model is asked.")
@click.option("--top", type=click.IntRange(1), default=8, show_default=True, help="Proposals that are put forward.")
@click.option("--edit/--no-edit", default=None, help="Decide in an editor ($EDITOR).  [default: at a terminal]")
@click.option("--by", help="Who decides, for the record.  [default: the user of this computer]")
@click.option("--model", help="Name of the language model at the server.")
@click.option("--base-url", help='An OpenAI-compatible server, or "local".')
@click.pass_obj
def factors(
    config: str, /, scenario: str | None, samples: int, top: int, edit: bool | None, by: str | None, **changes: Any
) -> None:
    """Ask the language model for the factors that decide preference, decide on them, and write them into a scenario.

    \b
    Example:
      kar-aug factors --scenario books --samples 7
      kar-aug factors --no-edit --top 6 --by "the model alone"
    """
    from kar_aug.cli import generation
    from kar_aug.generate.factors import propose, with_factors

    workspace = Workspace(Config.load(config, {"prompts": {"scenario": scenario}, "generate": changes}))
    job = generation.Job(workspace)
    path, content = _file_of(workspace)
    with workspace.open_cache() as cache, generation.served(job.model) as (model, key):
        proposals = propose(workspace.scenario, cache, model, samples=samples, key=key, prices=job.prices())
    before = workspace.scenario.factors
    rows: list[tuple[str, ...]] = [
        (p.factor, f"{p.votes} of {samples}", f"{p.rank:.1f}", "yes" if p.factor in before else "") for p in proposals
    ]
    table(f"Factors by {job.model.model}", ("factor", "samples", "mean rank", "in the scenario"), rows)
    decided = [proposal.factor for proposal in proposals[:top]]
    if edit if edit is not None else sys.stdin.isatty():
        decided = _edited(decided, [proposal.factor for proposal in proposals[top:]], before)
    expert, day = by or getpass.getuser(), str(date.today())
    asked = job.model.model
    write_atomic(path, with_factors(content, decided, proposals, by=expert, model=asked, samples=samples, day=day))
    Scenario.load(path)  # says so at once, should something be wrong with them
    results.print(f"Wrote {path}: {', '.join(decided)}", markup=False, soft_wrap=True)
    if workspace.config.path(workspace.config.prompts.scenario) != path or scenario is not None:
        notes.print(f'  to use it, set in kar.toml: [prompts] scenario = "{path.name}"', markup=False)


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


def _edited(decided: list[str], others: list[str], before: tuple[str, ...]) -> list[str]:
    """What the expert makes of the proposals."""
    text = "\n".join([_HELP, *decided, "", "# Proposed less often:", *(f"# {name}" for name in others), ""])
    text += f"\n# In the scenario until now: {', '.join(before)}\n"
    answer = click.edit(text, extension=".txt", require_save=False)
    lines = [" ".join(line.split()) for line in (answer or "").splitlines()]
    kept = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not kept:
        raise ConfigError("No factor was left, and nothing was written. At least one is needed.")
    return kept
