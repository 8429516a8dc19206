"""Prompts as the command line shows them."""

from __future__ import annotations

from pathlib import Path

from kar_aug.cli.progress import results
from kar_aug.errors import ConfigError
from kar_aug.files import write_atomic
from kar_aug.prompts import scenario_text


def write_scenario(name: str, settings: Path, *, force: bool) -> None:
    """Write a scenario of kar-aug into a file beside the settings, to edit."""
    content = scenario_text(name)
    path = settings.with_name(f"{name}.toml")
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already. Move it, or give --force to write over it.")
    write_atomic(path, content)
    results.print(f"Wrote {path}: factors, fields and templates, to edit.", markup=False)
