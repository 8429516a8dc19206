"""The halves stay apart: each is imported, and used, in a process where the other's packages cannot be."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.commands import fresh, without

import kar_aug

# Runs first in each process: no socket can be connected.
_GUARD = """
import socket, sys, threading
def refuse(*args, **kwargs):
    raise AssertionError(f"a network call: {args}")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
"""
_SAYS_ITS_EXTRA = """
import contextlib, io
from kar_aug.__main__ import main
sys.argv[1:] = {arguments}
said = io.StringIO()
try:
    with contextlib.redirect_stderr(said):
        main()
except SystemExit as exit:
    assert exit.code == 2
assert said.getvalue() == "kar-aug: {package} is not installed. Install it with: pip install 'kar-aug[cli]'\\n", said
"""
ONLINE_PACKAGES = ["tensorflow", "tf_keras", "keras", "deepctr"]
OFFLINE_PACKAGES = ["openai", "sentence_transformers", "torch", "transformers", "xllamacpp"]
EXTRAS = ["click", "jinja2", "jsonschema", "pandas", "pyarrow", "rich", "sqlalchemy", "tomlkit", *OFFLINE_PACKAGES]


def run(code: str, blocked: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"{without(*blocked)}{_GUARD}{code}"],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_with_tensorflow(code: str, blocked: list[str], folder: Path) -> None:
    """In a process that has TensorFlow already, which takes longest to import."""
    done = fresh(folder, "-c", f"{without(*blocked)}{_GUARD}{code}")
    assert done.returncode == 0, done.stderr


def test_importing_kar_aug_loads_no_framework_and_no_client() -> None:
    run(
        "import kar_aug; dir(kar_aug); assert threading.active_count() == 1\n"
        f"assert not set(sys.modules) & {set(ONLINE_PACKAGES + OFFLINE_PACKAGES)}",
        blocked=[],
    )


def test_little_is_imported_before_ctrl_c_ends_the_command_in_good_order() -> None:
    code = "import sys; import kar_aug; print([name for name in ('typing', 'pathlib', 're') if name in sys.modules])"
    here = {"PYTHONPATH": str(Path(kar_aug.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env=here)
    assert done.stdout.strip() == "[]", "these take longer than all else"


def test_no_help_of_a_command_waits_for_tables_and_databases() -> None:
    code = """
import click
from kar_aug.__main__ import main
from kar_aug.cli import main as command
def helps(group, *path):
    yield *path, "--help"
    for name, each in group.commands.items():
        yield from helps(each, *path, name) if isinstance(each, click.Group) else [(*path, name, "--help")]
for arguments in [("--version",), ("generate", "--no-such-option"), *helps(command)]:
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        assert end.code == (2 if arguments[-1] == "--no-such-option" else 0)
heavy = {"numpy", "pandas", "pyarrow", "sqlalchemy", "jinja2", "asyncio"} & set(sys.modules)
assert not heavy, heavy
"""
    assert run(code, blocked=[]).count("Usage: ") > 20


def test_a_command_that_runs_without_its_packages_says_which_extra_brings_them(tmp_path: Path) -> None:
    run(_SAYS_ITS_EXTRA.format(arguments=["init"], package="pandas"), ["pandas"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_offline_half_works_without_tensorflow(own_tables: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(own_tables, tmp_path / "project"))  # it writes answers
    code = """
from pathlib import Path
import numpy as np
import kar_aug.generate, kar_aug.encode, kar_aug.generate.local
from kar_aug.cli import main
from kar_aug.config import Config
from kar_aug.pipeline.workspace import Workspace
workspace = Workspace(Config.load(Path("kar.toml")))
assert len(list(workspace.asking.prompts("user"))) == 60
class Hash:
    name, dimension = "hash", 4
    def encode(self, texts):
        return np.asarray([[len(t), 1, 2, 3] for t in texts], "float32")
with workspace.open_cache() as cache:
    prompt = next(workspace.asking.prompts("item"))
    key = kar_aug.generate.question_key(workspace.config.generate, prompt)
    cache.link([("item", prompt.entity_id, key, prompt.version, None)])
    cache.put(kar_aug.cache.Answer(key, "ok", "a film", "m", prompt.messages))
    store = kar_aug.encode.encode(cache.knowledge("item"), "store", Hash())
assert len(store) == 1
main(["prompts", "--item", "3"], standalone_mode=False)
"""
    assert "Movie 3 (1953)" in run(code, ONLINE_PACKAGES, folder)


def test_the_online_half_works_without_a_language_model_client(tmp_path: Path) -> None:
    code = """
import numpy as np
import kar_aug.backbones, kar_aug.compare, kar_aug.models.export, kar_aug.models, kar_aug.report
from kar_aug import KnowledgeAugmentation
layer = KnowledgeAugmentation({"item_id": np.ones((3, 4), "float32")})
assert layer({"item_id": np.asarray([0, 2])})["item_id"].shape == (2, 32)
from kar_aug.backbones import DeepFM
from deepctr.feature_column import SparseFeat
columns = [SparseFeat("item_id", 3, 4)]
DeepFM(columns, columns, augmentation=layer).predict(np.asarray([1]), verbose=0)
import deepctr.utils
assert callable(deepctr.utils.check_version), "what we took for its own, while we imported it"
"""
    run_with_tensorflow(code, OFFLINE_PACKAGES, tmp_path)


STORE = """
import numpy as np
from kar_aug import StoreError, VectorStore
from kar_aug.cache import StoreSpec
with VectorStore.writer("items", StoreSpec("encoder", 4)) as writer:
    writer.append(["a", "b"], ["k", "k"], np.ones((2, 4)))
    writer.append(["b", "c"], ["k", "k"], np.eye(2, 4))
    writer.delete(["a"])
    writer.compact()
    writer.prune()
    try:
        with VectorStore.writer("items", StoreSpec("encoder", 4)):
            raise AssertionError("two writers")
    except StoreError as error:
        assert "another process" in str(error)
items = VectorStore.open("items")
assert items.gather(["c", "b"]).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]] and items.verify()
"""


def test_a_vector_store_needs_numpy_and_no_more(tmp_path: Path) -> None:
    run(STORE, [*ONLINE_PACKAGES, *EXTRAS], tmp_path)


def test_a_vector_store_needs_no_posix(tmp_path: Path) -> None:
    run(STORE, ["fcntl", "resource"], tmp_path)


@pytest.mark.both_keras
def test_the_layer_needs_a_keras_and_a_store_and_no_more(tmp_path: Path) -> None:
    """Keras imports pandas where it is installed, and Keras 3 cannot do without rich."""
    legacy_keras = os.environ["TF_USE_LEGACY_KERAS"] == "1"
    code = f"""{STORE}
import kar_aug.layers
from kar_aug import KnowledgeAugmentation, augment, load_model, prestore, refresh
from kar_aug._helpers.keras import IS_KERAS_3, keras, tf
assert IS_KERAS_3 is not {legacy_keras}
ids = keras.Input((1,), name="item_id", dtype="int32")
base = keras.Model(ids, keras.layers.Dense(1)(keras.layers.Flatten()(keras.layers.Embedding(4, 3)(ids))))
table = items.align([None, "a", "b", "c"])
model = augment(base, KnowledgeAugmentation({{"item_id": table}}, expert_units=(4, 2)))
model.compile("adam", "mse")
rows = np.arange(4, dtype="int32")[:, None]
model.fit(rows, np.ones(4), verbose=0)
model.save("model.keras")
expected = model.predict(rows, verbose=0)
for again in (load_model("model.keras"), refresh(model, {{"item_id": table}}), prestore(model)):
    np.testing.assert_allclose(again(rows, training=False), expected, rtol=1e-5, atol=1e-6)
batches = tf.data.Dataset.from_tensor_slices({{"item_id": rows[:, 0]}}).batch(2)
assert next(iter(items.join(batches, "item_id", [None, "a", "b", "c"])))["item_id_known"].shape == (2,)
"""
    blocked = [name for name in (*EXTRAS, "deepctr") if legacy_keras or name != "rich"]
    run_with_tensorflow(code, blocked, tmp_path)


def test_the_command_without_its_packages_says_which_extra_brings_them() -> None:
    run(_SAYS_ITS_EXTRA.format(arguments=[], package="click"), ["click"])


@pytest.mark.parametrize(
    ("code", "blocked", "words"),
    [
        ("from kar_aug import Project", "pandas", "pandas is not installed.*kar-aug\\[cli\\]"),
        ("import kar_aug.layers", "tensorflow", "tensorflow is not installed.*kar-aug\\[online\\]"),
        (
            "from kar_aug import TextCache",
            "sqlalchemy",
            "sqlalchemy is not installed.*kar-aug\\[offline\\]",
        ),
        (
            "import kar_aug.cache.vectors.parquet",
            "pyarrow",
            "pyarrow is not installed.*kar-aug\\[parquet\\]",
        ),
        ("from kar_aug.backbones import DeepFM", "deepctr", "deepctr is not installed.*kar-aug\\[online\\]"),
        (
            "from kar_aug.encode import *; SentenceTransformerEncoder()",
            "sentence_transformers",
            "sentence-transformers is not installed.*kar-aug\\[offline\\]",
        ),
        (
            "from kar_aug.generate.server import *; from kar_aug.config import *; Server(LanguageModel(), 'k')",
            "openai",
            "openai is not installed.*kar-aug\\[offline\\]",
        ),
    ],
)
def test_a_missing_package_is_named_with_its_extra(code: str, blocked: str, words: str, tmp_path: Path) -> None:
    check = f"""
import re
try:
    exec({code!r})
except Exception as error:
    assert re.search({words!r}, str(error)), error
else:
    raise AssertionError("no error")
"""
    if blocked == "deepctr":
        run_with_tensorflow(check, [blocked], tmp_path)
    else:
        run(check, [blocked])


def modules() -> dict[str, Path]:
    """All of ours, by the names that they are imported by."""
    found = {}
    for package in ("kar_aug", "kar_aug.backbones", "kar_aug.cache", "kar_aug.prompts"):
        spec = find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        folder = Path(spec.submodule_search_locations[0])
        for path in folder.rglob("*.py"):
            inside = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(part for part in inside if part != "__init__")])] = path
    return found


def imported(path: Path, ours: Collection[str]) -> set[str]:
    """The modules of ours that one imports, within functions, too, but not for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    unseen = {id(node) for block in blocks for node in ast.walk(block)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in unseen:
            assert node.module and not node.level, f"{path}: a relative import, which this does not follow"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= {name if name in ours else node.module for name in inside}
        elif isinstance(node, ast.Import) and id(node) not in unseen:
            names |= {alias.name for alias in node.names}
    return names & set(ours)


def test_no_module_needs_itself_by_way_of_others() -> None:
    ours = modules()
    graph = {name: imported(path, ours) - {name} for name, path in ours.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(ours) > 300
