"""What the documentation shows runs: examples of docstrings, Python in README and docs/, the scripts in examples/.

They run in the folder of a small project whose language model is a server on this machine, and find the names of
`names` there; nothing else is prepared for them.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from kar_aug._helpers.keras import IS_KERAS_3

if IS_KERAS_3:
    pytest.skip("DeepCTR works on the legacy API only", allow_module_level=True)

from deepctr.feature_column import SparseFeat

from kar_aug import KnowledgeAugmentation, TextCache, VectorStore, prestore
from kar_aug._helpers.keras import keras, tf
from kar_aug.cli import main
from kar_aug.testing import HashEncoder, OpenAIServer

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "kar_aug": "kar_aug",
    "kar_aug.backbones": "backbones",
    "kar_aug.prompts": "prompts",
    "kar_aug.cache": "cache",
}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def with_examples() -> dict[str, int]:
    """Modules that show examples, and how many lines. By their own names: imported as `backbones`, say, a file of a
    mapped folder would be there twice, with two classes of each name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if lines := re.findall(r"^ *>>> ", path.read_text(), re.MULTILINE):
                found[".".join([package, *parts]).removesuffix(".__init__")] = len(lines)
    return found


def blocks() -> list[str]:
    """The Python of README and docs/, each once, but for the whole job, which `test_project` runs as a script."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = [block for file in files for block in re.findall(r"^```python\n(.*?)^```", file.read_text(), re.S | re.M)]
    return [block for block in dict.fromkeys(found) if not block.startswith("from kar_aug import Project\n\n")]


@pytest.fixture(scope="module")
def project(own_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with tables, kar.toml, answers to all questions and their vectors; one of the movies is Fargo."""
    folder = Path(shutil.copytree(own_tables, tmp_path_factory.mktemp("docs") / "project"))
    items, settings = folder / "items.csv", folder / "kar.toml"
    items.write_text(items.read_text().replace("Movie 5 (1955)", "Fargo (1996)"))
    with OpenAIServer() as server, pytest.MonkeyPatch.context() as patch:
        encoder = '[encode]\nencoder = "kar_aug.testing:hash_encoder"\n'
        text = settings.read_text().replace("[generate]\n", f'[generate]\nbase_url = "{server.base_url}"\n')
        settings.write_text(text + encoder)
        patch.setenv("OPENAI_API_KEY", "any")
        patch.chdir(folder)
        for command in ("generate", "encode"):
            done = CliRunner().invoke(main, [command])
            assert done.exit_code == 0, done.output
        yield folder


@pytest.fixture
def names(
    request: pytest.FixtureRequest, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """What examples take for granted: stores, vocabularies, batches, a trained model. Models that none of them names
    are not built.
    """
    given = request.node.callspec.params
    text = given["block"] if "block" in given else inspect.getsource(importlib.import_module(given["module"]))
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.chdir(project)
    random = np.random.default_rng(0)
    users, items = (VectorStore.open(f".kar/vectors/{entity}") for entity in ("user", "item"))
    user_ids, item_ids = [None, *range(60)], [None, *range(40)]
    user_id, item_id = (random.integers(0, n, (64, 1)).astype("int32") for n in (61, 41))
    tables = {"user_id": users.align(user_ids), "item_id": items.align(item_ids)}
    models: dict[str, Callable[[], Any]] = {
        "augmentation": lambda: KnowledgeAugmentation(tables, expert_units=(8, 4)),
        "trained_model": model,
        "serving": lambda: prestore(model({"item_id": random.normal(size=(1683, 8))}), spare=1),
    }
    batches = tf.data.Dataset.from_tensor_slices(({"user_id": user_id, "item_id": item_id}, user_id[:, 0] % 2)).batch(
        32
    )
    columns = [SparseFeat("user_id", 61, 4), SparseFeat("item_id", 41, 4)]
    with TextCache(".kar/answers.sqlite") as cache:
        yield {
            "folder": tmp_path,
            "users": users, "items": items,
            "user_ids": user_ids, "item_ids": item_ids, "user_vocabulary": user_ids, "item_vocabulary": item_ids,
            "user_id": user_id, "item_id": item_id,
            "hist_item_id": random.integers(0, 41, (64, 5)), "hist_rating": random.integers(1, 6, (64, 5)),
            **{name: build() for name, build in models.items() if re.search(rf"\b{name}\b", text)},
            "batches": batches, "dataset": batches,
            "linear_feature_columns": columns, "dnn_feature_columns": columns,
            "vector": random.normal(size=8),
            "vectors": random.normal(size=(64, items.spec.dimension)), "known": item_id[:, 0] > 0,
            "cache": cache, "encoder": HashEncoder(),
        }  # fmt: skip


def model(knowledge: dict[str, Any] | None = None) -> Any:
    """User and item in, a click out; from their embeddings, or from the knowledge of items."""
    inputs = {name: keras.Input((1,), name=name, dtype="int32") for name in ("user_id", "item_id")}
    if knowledge is not None:
        joined = KnowledgeAugmentation(knowledge, name="knowledge_augmentation")({"item_id": inputs["item_id"]})[
            "item_id"
        ]
        return keras.Model(inputs["item_id"], keras.layers.Dense(1, activation="sigmoid")(joined))
    embedded = [keras.layers.Flatten()(keras.layers.Embedding(64, 4)(value)) for value in inputs.values()]
    hidden = keras.layers.Dense(8, activation="relu")(keras.layers.Concatenate()(embedded))
    return keras.Model([*inputs.values()], keras.layers.Dense(1, activation="sigmoid")(hidden))


@pytest.mark.parametrize(("module", "lines"), with_examples().items())
def test_examples_of_docstrings_hold(module: str, lines: int, names: dict[str, Any]) -> None:
    found = doctest.DocTestFinder().find(importlib.import_module(module), module, extraglobs=names)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for example in found:
        runner.run(example, out=said.append)
    assert sum(len(example.examples) for example in found) == lines, "an example stands where nobody looks for it"
    assert not runner.summarize(verbose=False).failed, "".join(said)


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block.splitlines()[0])
def test_python_in_the_documentation_runs(block: str, names: dict[str, Any]) -> None:
    exec(compile(block, "documentation", "exec"), names)


def test_the_example_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "1_add_the_layer.py"))
    assert capsys.readouterr().out.splitlines() == ["unchanged: True", "same: True"]
