"""The `kar-aug forget` command: delete all that is kept of users and items, and leave them out from then on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kar_aug.cli.options import command, opened
from kar_aug.cli.progress import table, tell
from kar_aug.errors import ConfigError

if TYPE_CHECKING:
    from kar_aug.pipeline.forgetting import Forgotten


@command()
@click.option("--user", "users", multiple=True, metavar="ID", help="Id of a user; may be given several times.")
@click.option("--item", "items", multiple=True, metavar="ID", help="Id of an item; may be given several times.")
@click.option("--dry-run", is_flag=True, help="Show what would be deleted; delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--unforget", is_flag=True, help="Let them in again. What was deleted is not restored.")
@click.pass_obj
def forget(
    config: str, /, users: tuple[str, ...], items: tuple[str, ...], dry_run: bool, yes: bool, unforget: bool
) -> None:
    """Delete all that is kept of users or items: prompts, answers, vectors, copies; and leave them out from then on.

    Where a user was in what was made of many (groups, prepared samples, trained models), all of it is deleted, and made
    again when it is needed. What was sent or published beyond reach is listed. What was paid stays in the ledger,
    without whom it was about. Your own tables are yours to mend: until then, these ids are left out of them.

    \b
    Example:
      kar-aug forget --user 42 --dry-run
      kar-aug forget --user 42 --user 43 --yes
    """
    if not users and not items:
        raise ConfigError("forget needs to know whom: --user ID, or --item ID.")
    if unforget and dry_run:
        raise ConfigError("--unforget and --dry-run exclude each other.")
    project = opened(config)
    if unforget:
        tell(f"{project.unforget(users, items):,} are let in again: kar-aug generate asks about them")
        return
    if dry_run or not yes:
        _print(project.forget(users, items, dry_run=True))
        if dry_run:
            return
        click.confirm("Delete this for good, and leave them out from now on?", abort=True, err=True)
    _print(project.forget(users, items))
    tell("they are left out from now on; what is needed anew: kar-aug generate, kar-aug encode, kar-aug compare")


def _print(done: Forgotten) -> None:
    rows = [(what, f"{count:,}") for what, count in done.counts.items() if count]
    if rows:
        table("Would be deleted" if done.dry_run else "Deleted", ("", "count"), rows)
    else:
        tell("nothing is kept of them")
    for sentence in done.elsewhere:
        tell(f"not in our hands: {sentence}")
    for sentence in done.follows:
        tell(sentence)
