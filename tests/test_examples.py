"""The notebooks and scripts of examples/ run, on small data; the first two scripts in test_docs and test_project.

A notebook has one kernel, in which an event loop runs, as in Jupyter; nothing in it has an `if __name__ == "__main__"`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from support.commands import script
from support.exhaustive import table

EXAMPLES = Path(__file__).parents[1] / "examples"
# Fewer trainings than a reader is shown: what is tested is that it all goes.
FEWER = {
    "5_add_the_layer": {"trained(model, 3)": "trained(model, 1)", "trained(augmented, 8)": "trained(augmented, 1)"},
    "6_your_own_tables": {'"seeds": 2': '"seeds": 1', '"epochs": 4': '"epochs": 1', '["shuffled"]': "[]"},
}


def read(name: str) -> Any:
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def printed(notebook: Any) -> str:
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))


@pytest.mark.slow
@pytest.mark.parametrize("name", table(FEWER, "5_add_the_layer"))
def test_a_notebook_runs_from_its_first_cell_to_its_last(name: str, tmp_path: Path) -> None:
    nbclient, notebook = pytest.importorskip("nbclient"), read(name)
    shown = printed(notebook)
    for before, after in FEWER[name].items():
        assert any(before in cell.source for cell in notebook.cells)
        for cell in notebook.cells:
            cell.source = cell.source.replace(before, after)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Jupyter's own packages say
        client.execute()
    said = printed(notebook)
    for sentence in ("the same predictions: True", "left out: True", "no leak found", "170 asked"):
        assert (sentence in said) == (sentence in shown)


@pytest.mark.parametrize("name", FEWER)
def test_a_notebook_is_kept_as_it_was_executed(name: str) -> None:
    codes = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == [*range(1, len(codes) + 1)]
    assert not any(output.output_type == "error" for cell in codes for output in cell.outputs)


def test_scripts_are_numbered_and_short() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert [path.name[0] for path in scripts] == list("12347")
    assert all(len(path.read_text().splitlines()) < 80 for path in scripts)


@pytest.mark.slow
def test_the_job_stays_within_its_budget_and_forgets(tmp_path: Path) -> None:
    done = script(tmp_path, EXAMPLES / "3_a_job_within_a_budget.py")
    assert done.returncode == 0, done.stderr
    assert "batch batch-0: completed, 40 answers" in done.stdout and done.stdout.endswith("left out: True\n")


@pytest.mark.slow
def test_a_new_item_is_known_without_training(tmp_path: Path) -> None:
    done = script(tmp_path, EXAMPLES / "4_new_items.py")
    assert done.returncode == 0, done.stderr
    assert "the quiet one is liked: True" in done.stdout


@pytest.mark.slow
def test_lists_are_ranked_again_and_served(tmp_path: Path) -> None:
    done = script(tmp_path, EXAMPLES / "7_rerank.py")
    assert done.returncode == 0, done.stderr
    served = done.stdout.split("liked")[1].split("\n")[1:-1]  # the last six lines, from the first place to the last
    assert "PRM + item knowledge" in done.stdout and len(served) == 6
    liked = ["True" in line for line in served]
    assert liked == sorted(liked, reverse=True) and any(liked) and not all(liked)
