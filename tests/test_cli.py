"""The command line as a user meets it: good input, and bad input that gets one clear line and exit code 2."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.commands import fresh, kar_aug, refused, without
from support.jobs import KEY
from support.requests import request
from support.training import step_by_step

from kar_aug import Project
from kar_aug.cache import VectorStore
from kar_aug.cli import main
from kar_aug.compare.arms import arms, fullest
from kar_aug.compare.book import BOOK, Book
from kar_aug.compare.experiment import Experiment
from kar_aug.compare.tasks import Training
from kar_aug.testing import ChatServer

DOCS = Path(__file__).parents[1] / "docs"
HASHES = ("--encoder", "kar_aug.testing:hash_encoder")


@pytest.mark.usefixtures("step_by_step")
def test_knowledge_of_items_alone_is_enough(folder: Path) -> None:
    items = pd.read_csv(folder / "items.csv")
    items.assign(text="About " + items["title"]).to_csv(folder / "texts.csv", index=False)
    settings = (folder / "kar.toml").read_text()
    settings = settings.replace("[data]", "[data]\nevent_features = []")
    (folder / "kar.toml").write_text(settings.replace("controls = []", 'controls = ["metadata"]'))
    assert kar_aug(folder, "cache", "import", "texts.csv").returncode == 0
    encoded = kar_aug(folder, "encode", *HASHES)
    assert encoded.returncode == 0 and "users: no knowledge, nothing to encode" in encoded.stderr, encoded.stderr
    assert not (folder / ".kar/vectors/user").exists()
    compared = kar_aug(folder, "compare", "--seeds", "1")
    assert compared.returncode == 0, compared.stderr
    assert "knowledge of items alone: it is compared in place of" in compared.stderr, compared.stderr
    assert "DeepFM + item knowledge" in compared.stdout and "DeepFM + metadata text" in compared.stdout
    assert "item" in kar_aug(folder, "inspect", "--vectors").stdout


def test_the_whole_way_on_a_users_own_tables(folder: Path, chat_server: ChatServer) -> None:
    assert "Movie 3 (1953)" in kar_aug(folder, "prompts", "--item", "3").stdout
    generated = kar_aug(folder, "generate", "--base-url", chat_server.base_url)
    assert generated.returncode == 0, generated.stderr
    assert "100 asked, 0 already cached, 0 failed of 100" in generated.stderr, generated.stderr
    assert chat_server.answered == 100
    assert kar_aug(folder, "generate", "--base-url", chat_server.base_url).returncode == 0
    assert chat_server.answered == 100, "a second run asks nothing"
    assert kar_aug(folder, "encode").returncode == 0
    assert len(VectorStore.open(folder / ".kar/vectors/user")) == 60
    with step_by_step():
        compared = kar_aug(folder, "compare")
    assert compared.returncode == 0, compared.stderr
    assert re.search(r"DeepFM \+ knowledge.*100% / 100%.*0\.\d{4}", compared.stdout)
    assert (
        "DeepFM + knowledge beats DeepFM: nothing can be told over what does not beat" in compared.stdout
    )  # of 90 rows, two epochs
    assert compared.stdout.startswith("DeepFM (AUC 0."), "that it beats nothing is said before any number is read"
    assert (folder / ".kar/report.html").read_text().count("<svg") == 4
    assert (folder / ".kar/results.csv").read_text().count("\n") == 3 and "| DeepFM |" in (
        folder / ".kar/results.md"
    ).read_text()
    assert "About:" in kar_aug(folder, "inspect", "--user", "5").stdout
    counts = kar_aug(folder, "inspect").stdout
    assert re.search(r"ok.*100", counts) and "all-MiniLM-L6-v2" in counts
    vectors = kar_aug(folder, "inspect", "--vectors").stdout
    assert re.search(r"user +60 +384 float16 +100.0% +100.0% +1.000 / 1.000 / 1.000", vectors), vectors
    assert "items: encoder sentence-transformers/all-MiniLM-L6-v2" in vectors and "pooling mean" in vectors
    near = kar_aug(folder, "inspect", "--vectors", "--item", "Movie 3 (1953)").stdout
    assert "Nearest to Movie 3 (1953)" in near and near.count("Movie") == 6, near
    assert "Did you mean" in refused(kar_aug(folder, "inspect", "--vectors", "--item", "Movie"))

    exported = kar_aug(folder, "export", "--output", "serving/1")  # of the first backbone of kar.toml
    assert exported.returncode == 0, exported.stderr
    serve_with_tensorflow_alone(folder)
    for path in folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), f"the key is in {path}"


def serve_with_tensorflow_alone(folder: Path) -> None:
    """Load the export where neither kar_aug nor DeepCTR can be imported, ask it for the test rows and what the
    documentation asks; compare with the predictions of the comparison.
    """
    workspace = Project.open(folder / "kar.toml").workspace
    note = json.loads((folder / "serving/1/assets.extra/kar_aug.json").read_text())
    samples = workspace.samples
    sent = request(workspace.data.split, samples.rows[samples.of("test")].tolist(), note["inputs"])
    (example,) = re.findall(r"predict -d '(.*?)'", (DOCS / "serving.md").read_text(), re.S)
    (folder / "example.json").write_text(example)
    np.savez(folder / "request.npz", **sent)
    code = """
import json, numpy as np, tensorflow as tf
serve = tf.saved_model.load("serving/1").signatures["serving_default"]
output = serve(**{name: tf.constant(values) for name, values in np.load("request.npz").items()})
np.save("output.npy", output["ctr"].numpy())
dtypes = {name: spec.dtype for name, spec in serve.structured_input_signature[1].items()}
example = json.load(open("example.json"))["inputs"]
output = serve(**{name: tf.constant(values, dtypes[name]) for name, values in example.items()})
assert output["ctr"].shape == (2, 1), output
"""
    done = fresh(folder, "-c", without("kar_aug", "deepctr") + code)
    assert done.returncode == 0, done.stderr
    experiment = Experiment(workspace)
    arm = fullest(arms(experiment.config), "DeepFM")
    assert arm is not None
    book = Book(experiment.folder / BOOK)
    expected = book.prediction(Training(arm, 0, experiment.training).identity(experiment))
    np.testing.assert_allclose(np.load(folder / "output.npy")[:, 0], expected, rtol=0, atol=1e-6)
    assert note["stores"]["item"] == VectorStore.open(folder / ".kar/vectors/item").fingerprint


def test_a_server_that_is_down(folder: Path) -> None:
    line = refused(kar_aug(folder, "generate", "--base-url", "http://127.0.0.1:9/v1"))
    assert "http://127.0.0.1:9/v1 cannot be reached. Is the server running?" in line


def test_a_wrong_key_loses_nothing(folder: Path, chat_server: ChatServer) -> None:
    kar_aug(folder, "generate", "--base-url", chat_server.base_url, "--only", "item")
    chat_server.behaviour = lambda server, request, number: (401, {}, b'{"error": {"message": "bad key"}}')
    line = refused(kar_aug(folder, "generate", "--base-url", chat_server.base_url))
    assert "401" in line and "OPENAI_API_KEY" in line
    chat_server.behaviour = type(chat_server)().behaviour
    kar_aug(folder, "generate", "--base-url", chat_server.base_url)
    assert chat_server.answered == 100


def test_no_key_at_all(folder: Path, chat_server: ChatServer) -> None:
    assert "Set OPENAI_API_KEY" in refused(kar_aug(folder, "generate", "--base-url", chat_server.base_url, key=None))


def test_a_missing_column(folder: Path) -> None:
    frame = pd.read_parquet(folder / "interactions.parquet")
    frame.drop(columns="timestamp").to_parquet(folder / "interactions.parquet")
    assert "interactions: column 'timestamp' is missing" in refused(kar_aug(folder, "prompts"))


def test_an_id_that_repeats(folder: Path) -> None:
    items = pd.read_csv(folder / "items.csv")
    pd.concat([items, items.tail(1)]).to_csv(folder / "items.csv", index=False)
    assert "item_id 39 stands in more than one row" in refused(kar_aug(folder, "prompts"))


def test_a_feature_that_no_table_has(folder: Path) -> None:
    text = (folder / "kar.toml").read_text()
    (folder / "kar.toml").write_text(text.replace('item_features = ["genres"]', 'item_features = ["colour"]'))
    for source in ("user", "item"):
        write_vectors(folder / f".kar/vectors/{source}")
    assert "items: there is no column 'colour'" in refused(kar_aug(folder, "compare"))


def write_vectors(path: Path) -> None:
    from kar_aug.cache import StoreSpec

    with VectorStore.writer(path, StoreSpec("e", 2)) as writer:
        writer.append([1], ["k"], np.ones((1, 2)))


@pytest.mark.parametrize("command", [["compare", "--backbone", "DCN"], ["export", "--backbone", "DCN"]])
def test_an_unknown_backbone(folder: Path, command: list[str]) -> None:
    assert "there is no backbone 'DCN'. Known: DeepFM, DIN, FiBiNET" in refused(kar_aug(folder, *command))


def test_a_half_written_cache_is_not_overwritten(folder: Path, chat_server: ChatServer) -> None:
    cache = folder / ".kar/answers.sqlite"
    kar_aug(folder, "generate", "--base-url", chat_server.base_url)
    with sqlite3.connect(cache) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = cache.read_bytes()
    cache.write_bytes(b"\0" * 100 + content[100 : len(content) // 2])
    broken = cache.read_bytes()
    assert "answers.sqlite is not a usable text cache" in refused(kar_aug(folder, "generate"))
    assert cache.read_bytes() == broken


def test_half_a_vector_store(folder: Path, chat_server: ChatServer) -> None:
    kar_aug(folder, "generate", "--base-url", chat_server.base_url)
    kar_aug(folder, "encode", *HASHES)
    part = next((folder / ".kar/vectors/item").glob("*.vectors.npy"))
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    line = refused(kar_aug(folder, "compare"))
    assert part.name in line and "encode again" in line


def test_stages_out_of_order_say_which_comes_first(folder: Path) -> None:
    assert "kar-aug encode" in refused(kar_aug(folder, "compare"))
    assert "kar-aug generate" in refused(kar_aug(folder, "encode"))


def test_an_encoder_that_there_is_not(folder: Path) -> None:
    line = refused(kar_aug(folder, "encode", "--encoder", "glove:x"))
    assert "[encode] encoder 'glove:x' is unknown" in line and "openvino:NAME" in line
    settings = (folder / "kar.toml").read_text()
    (folder / "kar.toml").write_text(settings + "[encode]\npca = 4\ntruncate_dim = 4\n")
    assert "[encode] takes truncate_dim or pca, not both" in refused(kar_aug(folder, "encode"))


def test_settings_that_are_wrong(folder: Path) -> None:
    assert "kar-aug init" in refused(kar_aug(folder, "-c", "none.toml", "prompts"))
    (folder / "kar.toml").write_text("[data]\ndatasett = 'movielens-100k'\n")
    assert "no setting 'datasett' in [data]. Did you mean 'dataset'?" in refused(kar_aug(folder, "prompts"))
    (folder / "kar.toml").write_text("[data\n")
    assert "kar.toml is not valid TOML" in refused(kar_aug(folder, "prompts"))


def test_ids_that_are_not_there(folder: Path) -> None:
    assert "no user '999'" in refused(kar_aug(folder, "prompts", "--user", "999"))
    assert "Nothing was asked about item '3' yet" in refused(kar_aug(folder, "inspect", "--item", "3"))


def test_init_writes_settings_and_never_over_a_file(tmp_path: Path) -> None:
    assert kar_aug(tmp_path, "init").returncode == 0
    assert 'dataset = "movielens-100k"' in (tmp_path / "kar.toml").read_text()
    assert "--force" in refused(kar_aug(tmp_path, "init"))


def test_init_writes_a_scenario_to_edit(folder: Path, tmp_path: Path) -> None:
    assert "there is no scenario 'bookz'" in refused(kar_aug(tmp_path, "init", "--scenario", "bookz")).lower()
    assert kar_aug(tmp_path, "init", "--scenario", "books").returncode == 0
    assert 'scenario = "books.toml"' in (tmp_path / "kar.toml").read_text()
    assert "--force" in refused(kar_aug(tmp_path, "init", "--scenario", "books"))
    done = kar_aug(folder, "init", "--scenario", "books")
    assert 'Set in it: [prompts] scenario = "books.toml"' in done.stdout
    settings = (folder / "kar.toml").read_text()
    (folder / "kar.toml").write_text(f'{settings}\n[prompts]\nscenario = "books.toml"\n')
    text = (folder / "books.toml").read_text().replace("You know books well.", "You know films well.")
    (folder / "books.toml").write_text(text)
    shown = kar_aug(folder, "prompts").stdout
    assert "You know films well." in shown and "Books read in order of time" in shown


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_help_with_an_example_and_stands_in_the_documentation(command: str) -> None:
    text = main.commands[command].help or ""
    assert "Example:" in text
    assert f"kar-aug {command}" in (DOCS / "get-started.md").read_text()
