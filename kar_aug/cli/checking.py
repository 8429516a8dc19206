"""The `kar-aug check` command: what a run will do and cost, and what will go wrong, before anything is paid for."""

from __future__ import annotations

import textwrap

import click

from kar_aug.cli.options import command, opened
from kar_aug.cli.progress import output, results

_COLUMN = 8  # the longest name of a stage, and a space or two


@command()
@click.pass_context
def check(context: click.Context) -> None:
    """Say what a run will do and cost, and every trap that is sure to fail later. Nothing is sent.

    What models read is prepared, as kar-aug prepare does. Exit code 1 if something is sure to fail (x), 0 if there are
    warnings (!) at most.

    \b
    Example:
      kar-aug check
      kar-aug --sample 10000 check
    """
    done = opened(context.obj).check()
    width = min(results.width, 118)
    for stage, text in done.steps:
        output(_hanging(text, f"{stage:<{_COLUMN}}", width))
    if done.traps:
        output("")
    for trap in done.traps:
        output(_hanging(trap.text, "x " if trap in done.faults else "! ", width))
    if done.faults:
        output(f"\n{len(done.faults)} sure to fail (x). Mend kar.toml or the tables, and check again.")
    context.exit(1 if done.faults else 0)


def _hanging(text: str, head: str, width: int) -> str:
    return textwrap.fill(text, width, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False)
