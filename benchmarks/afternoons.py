"""From a folder of files to a verdict, as a stranger does it: every command, its time, its bill, and what it ends with.

    python benchmarks/afternoons.py [--folders news shop] [--users 2000] [--seeds 5] [--output .kar/afternoons]

The folders are those of strangers.py. A scripted server stands for the language model: what asking costs is real by
tokens and prices (gpt-4o-mini's), and its seconds are not a provider's. A folder that is there goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tomlkit
from strangers import FOLDERS, says

from kar_aug import Project
from kar_aug.testing import OpenAIServer

STAGES = ("check", "generate", "encode", "compare")


def main() -> None:
    """Walk through each folder; print a line a command, and a table at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", nargs="+", choices=FOLDERS, default=list(FOLDERS))
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(".kar/afternoons"))
    chosen = parser.parse_args()
    rows = []
    with OpenAIServer(says=says) as server:
        for name in chosen.folders:
            folder = chosen.output / name
            if not folder.exists():
                folder.mkdir(parents=True)
                FOLDERS[name](folder, np.random.default_rng(0), chosen.users)
            rows.append(_afternoon(folder, server, chosen.seeds))
    print("\n| folder | " + " | ".join(f"{stage}, CPU s (s)" for stage in ("init", *STAGES)) + " | dollars |")
    print("| --- " * (len(STAGES) + 3) + "|")
    print("\n".join(rows))


def _afternoon(folder: Path, server: OpenAIServer, seeds: int) -> str:
    took = []
    if not (folder / "kar.toml").exists():
        took.append(_command(folder, "init", "--data", "."))
    settings = tomlkit.parse((folder / "kar.toml").read_text(encoding="utf-8"))
    settings["generate"]["base_url"] = server.base_url
    settings["compare"]["seeds"] = seeds
    (folder / "kar.toml").write_text(tomlkit.dumps(settings), encoding="utf-8")
    took += [_command(folder, stage) for stage in STAGES]
    if len(took) == len(STAGES):  # the folder was there
        took.insert(0, "")
    spent = sum(row.settled or 0.0 for row in Project.open(folder / "kar.toml").cost().by_model)
    return f"| {folder.name} | " + " | ".join(took) + f" | {spent:.2f} |"


def _command(folder: Path, *words: str) -> str:
    """Run one, show what it says, and return the seconds it took: of processors, and by the clock."""
    print(f"\n# {folder.name}: kar-aug {' '.join(words)}", flush=True)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, "OPENAI_API_KEY": "unused", "TF_USE_LEGACY_KERAS": "1", "COLUMNS": "160"}
    ended = subprocess.run([sys.executable, "-m", "kar_aug", *words], cwd=folder, env=environment, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    told = f"{processor:.0f} ({time.monotonic() - start:.0f})"
    if ended.returncode:
        sys.exit(f"kar-aug {' '.join(words)} ended with {ended.returncode} in {folder}.")
    return told


if __name__ == "__main__":
    main()
