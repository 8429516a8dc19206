"""The `kar-aug factors` command: factors that a language model proposes and an expert decides."""

from __future__ import annotations

import sys
from typing import Any

import click

from kar_aug.cli.options import command, opened
from kar_aug.cli.progress import output, table, tell
from kar_aug.errors import ConfigError

_HELP = """\
# Factors of the scenario, one a line, in the order in which they are asked about.
# Delete, change, move or add lines; save and close. What begins with # is no factor.
"""


@command()
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
    project = opened(config, prompts={"scenario": scenario}, generate=changes)
    proposed = project.factors(samples=samples)
    rows: list[tuple[str, ...]] = [
        (p.factor, f"{p.votes} of {samples}", f"{p.rank:.1f}", "yes" if p.factor in proposed.before else "")
        for p in proposed.proposals
    ]
    table(f"Factors by {proposed.model}", ("factor", "samples", "mean rank", "in the scenario"), rows)
    names = [proposal.factor for proposal in proposed.proposals]
    decided = names[:top]
    if edit if edit is not None else sys.stdin.isatty():
        decided = _edited(decided, names[top:], proposed.before)
    path = proposed.decide(decided, by=by)
    output(f"Wrote {path}: {', '.join(decided)}")
    if scenario is not None or project.config.path(project.config.prompts.scenario) != path:
        tell(f'to use it, set in kar.toml: [prompts] scenario = "{path.name}"')


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
