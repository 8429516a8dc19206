"""The commands from answers to a model for serving: encode, codes, prepare, audit, compare, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kar_aug._helpers.formats import FORMATS
from kar_aug.cli.options import command, engine_options, opened, recipe_options
from kar_aug.cli.progress import output as print_output
from kar_aug.cli.progress import sentence as print_sentence
from kar_aug.cli.progress import table, tell
from kar_aug.config import AUDITED_USERS
from kar_aug.errors import ConfigError

if TYPE_CHECKING:
    from kar_aug.audit import Audit
    from kar_aug.pipeline.comparing import Compared
    from kar_aug.pipeline.project import Project


@command()
@click.option(
    "--encoder",
    help="A sentence-transformers name or folder, or another kind: openvino:NAME, transformers:NAME, "
    "model2vec:NAME, openai:NAME.",
)
@click.option(
    "--collaborative", is_flag=True, help="Make vectors of the training part's behaviour, of no text, instead."
)
@engine_options("ray")
@click.option(
    "--gpus", type=click.FloatRange(0), default=0.0, help="With --engine: of each worker; a part of one, too."
)
@recipe_options
@click.pass_obj
def encode(
    config: str, /, encoder: str | None, collaborative: bool, engine: str | None, address: str | None,
    workers: int | None, gpus: float, **recipes: Any,
) -> None:  # fmt: skip
    """Turn the answers into knowledge vectors; those that are up to date stay.

    What an endpoint ("openai:NAME") charges is shown by kar-aug cost, and limited by [encode] max_cost.

    \b
    Example:
      kar-aug encode --encoder sentence-transformers/all-MiniLM-L6-v2
      kar-aug encode --engine ray --address auto --workers 8 --gpus 1
    """
    if (address or workers or gpus) and not engine:
        raise ConfigError("--address, --workers and --gpus go with --engine.")
    opened(config, prompts=recipes, encode={"encoder": encoder}).encode(
        collaborative=collaborative, engine=engine, address=address, workers=workers, num_gpus=gpus
    )


@command()
@click.option("--levels", type=click.IntRange(1), help="Codes an item, as in [codes].")
@click.option("--size", type=click.IntRange(2), help="Codes a level, as in [codes].")
@click.option("--anew", is_flag=True, help="Fit new codebooks, which moves all codes: train models again then.")
@click.pass_obj
def codes(config: str, /, levels: int | None, size: int | None, anew: bool) -> None:
    """Turn the knowledge vectors into semantic ids: a few small integers an item, coarse to fine.

    Models read them as sparse features: [compare] injections = ["codes"]. Items that have codes keep them; new ones get
    theirs by the same codebooks. Shown is how many items share codes, and what these keep of the vectors.

    \b
    Example:
      kar-aug codes
      kar-aug codes --levels 4 --size 512 --anew
    """
    from kar_aug.codes.report import COLUMNS

    done = opened(config, codes={"levels": levels, "size": size}).codes(anew=anew)
    for each in done.stores:
        table(f"Semantic ids of {each.title}", COLUMNS, each.report.rows)
        for sentence in each.report.sentences:
            print_sentence(f"  {sentence}")


@command()
@click.option("--clean", is_flag=True, help="Delete what was prepared of earlier settings or files.")
@click.pass_obj
def prepare(config: str, /, clean: bool) -> None:
    """Read, check and split the tables, and write what models read into the workdir.

    audit and compare do so where it is missing. All processes that train share it.

    \b
    Example:
      kar-aug prepare
    """
    done = opened(config).prepare()
    if clean:
        tell(f"{done.clean() / 1e6:,.1f} MB deleted")
    tell(done)
    if done.others:
        tell("To delete the earlier ones: kar-aug prepare --clean")


@command()
@click.option(
    "--attributes", metavar="NAMES", help="A fairness audit instead: what these columns of users in prompts change."
)
@click.option(
    "--users", type=click.IntRange(1), default=AUDITED_USERS, show_default=True, help="With --attributes: how many."
)
@click.option("--dry-run", is_flag=True, help="With --attributes: count prompts, tokens and dollars; send nothing.")
@click.pass_context
def audit(context: click.Context, attributes: str | None, users: int, dry_run: bool) -> None:
    """Look for leaks: anything by which knowledge or features know what a comparison tests on.

    Checks the split, the models' inputs, the stored prompts with their as-of times, and the vectors; and names texts
    that speak to a language model. Exit code 1 if there are leaks, 0 if there are none, 2 if there are none as far as
    the stored answers can be read.

    With --attributes, the language model is asked about some users without these, and with each of their values: how
    far do texts and vectors move? What is asked counts in max_cost.

    \b
    Example:
      kar-aug audit
      kar-aug audit --attributes gender,age --dry-run
    """
    project = opened(context.obj)
    if attributes is not None:
        names = [name.strip() for name in attributes.split(",") if name.strip()]
        _fairness(project, names, users, dry_run=dry_run)
        return
    if dry_run:
        raise ConfigError("--dry-run goes with --attributes: the audit for leaks sends nothing.")
    done = project.audit()
    _print_audit(done)
    context.exit(1 if done.leaks else 2 if done.damaged else 0)


def _fairness(project: Project, attributes: list[str], users: int, *, dry_run: bool) -> None:
    from kar_aug.pipeline.fairness import COLUMNS
    from kar_aug.pipeline.fairness import dry_run as planning

    if dry_run:
        planned, shown = planning(project.workspace, attributes, users=users)
        for name, count in shown.items():
            tell(f"{name}: {count:,} prompts show it")
        tell(planned)
        return
    done = project.audit_fairness(attributes, users=users)
    if done.moved:
        table("Likeness to neutral texts, 1 where nothing changed", COLUMNS, done.rows)
    for sentence in done.sentences:
        print_sentence(f"  {sentence}")


def _print_audit(done: Audit) -> None:
    table("Audit", ("checked", "on", "result"), done.rows)
    for line in done.explanation:
        print_sentence(f"  {line}")


@command()
@click.option("--backbone", multiple=True, help="Compare these only; may be given several times.")
@click.option("--seeds", type=click.IntRange(1), help="Trainings an arm.")
@click.option("--tune", type=click.IntRange(0), help="Trials an arm of the search for settings.")
@click.option("--jobs", type=click.IntRange(1), help="Processes that train side by side.  [default: one a core]")
@click.option("--report", type=click.Path(path_type=Path), help="The HTML file to write.  [default: in the workdir]")
@click.option("--unaudited", is_flag=True, help="Compare though the audit may find leaks; the report says so.")
@recipe_options
@click.pass_obj
def compare(
    config: str, /, backbone: tuple[str, ...], report: Path | None, unaudited: bool, seeds: int | None,
    tune: int | None, jobs: int | None, **recipes: Any,
) -> None:  # fmt: skip
    """Train each backbone with and without knowledge, and with controls; say which gain is real.

    Nothing is trained where the audit (kar-aug audit) finds leaks.

    \b
    Example:
      kar-aug compare --backbone DIN --seeds 5
      kar-aug compare --item-recipe tags     # models that were trained already are not trained again
      kar-aug compare --tune 10 --jobs 8
    """
    training = {"backbones": backbone or None, "seeds": seeds, "tune": tune, "jobs": jobs}
    done = opened(config, prompts=recipes, compare=training).compare(unaudited=unaudited)
    chosen = "".join(f" --{name.replace('_', '-')} {value}" for name, value in recipes.items() if value)
    sample = click.get_current_context().find_root().params["sample"]
    some = "" if sample is None else f" --sample {sample}"
    print_comparison(done, report, title=done.comparison.objective.title, reproduce=f"kar-aug{some} compare{chosen}")


def print_comparison(done: Compared, report: Path | None, *, title: str, reproduce: str) -> None:
    """Print the table and what it says, and write the report with the tables beside it."""
    print_results(done, title)
    report = done.write(report, title=title, reproduce=reproduce)
    print_output(f"Report: {report}; beside it results.csv and results.md")


def print_results(done: Compared, title: str) -> None:
    """Print the table and what it says; what makes it say nothing comes first."""
    from kar_aug.report import FEW_PAIRS, legend, rows, terminal_columns

    for sentence in done.doubts:
        print_sentence(sentence)
    columns = terminal_columns(done.comparison)
    table(title, columns, rows(done.comparison, columns))
    within = f" GAUC: within {done.comparison.grouped_by}s." if "GAUC" in columns else ""
    print_sentence(f"  {legend(done.comparison)}{within}")
    pairs = [verdict.text for verdict in done.verdicts]
    if len(pairs) > FEW_PAIRS:
        pairs = [f"The report has each of {len(pairs)} pairs of models by itself."]
    for sentence in [*done.conclusions, *pairs, *done.price]:
        print_sentence(f"  {sentence}")


@command()
@click.option("--backbone", help="Which of the compared models.  [default: the first of [compare] backbones]")
@click.option("--seed", default=0, show_default=True, help="Which of its trainings.")
@click.option("--arm", help='By its name in the tables of results, for another than that with the most: "DeepFM".')
@click.option("--output", default="serving", show_default=True, help="The folder to write.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default=FORMATS[0],
    show_default=True,
    help="Or one file in the folder, for ONNX (pip install 'kar-aug[onnx]'), or TFLite, which lacks much.",
)
@recipe_options
@click.pass_obj
def export(
    config: str, /, backbone: str | None, seed: int, arm: str | None, output: str, kind: str, **recipes: Any
) -> None:
    """Write a compared model as a SavedModel with prestored vectors, which TensorFlow alone can serve.

    It is fed with raw ids and raw values; assets.extra/kar_aug.json in it says which (kar_aug.json beside a file).

    \b
    Example:
      kar-aug export --backbone DIN --output serving/1
      kar-aug export --arm "DeepFM + item knowledge (similarity)"
      kar-aug export --format onnx --output serving-onnx
    """
    # The backbone among the settings: its name is checked there.
    project = opened(config, prompts=recipes, compare={"backbones": [backbone]} if backbone and not arm else {})
    names = {"savedmodel": "SavedModel", "onnx": "ONNX", "tflite": "TFLite"}
    print_output(f"{names[kind]}: {project.export(output, backbone, seed=seed, arm=arm, format=kind)}")
