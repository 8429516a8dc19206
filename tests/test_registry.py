"""Names of one kind: ours, those of entry points, and "module:attribute"; checked without importing anything."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from kar_aug import Project, registry
from kar_aug.errors import ConfigError, MissingDependencyError
from kar_aug.registry import ENCODERS, PROTOCOLS, Registry

REGISTRIES = {name: value for name, value in vars(registry).items() if isinstance(value, Registry)}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that adds a protocol, and a module beside it."""
    (tmp_path / "theirs.py").write_text("def by_week(frame, shares): return 'weeks'\n")
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    metadata = tmp_path / "theirs-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[kar_aug.protocols]\nweekly = theirs:by_week\nuser = theirs:by_week\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def fresh(registry: Registry) -> Registry:
    return Registry(registry.kind, registry.group, registry._ours)


def test_an_entry_point_is_a_name_like_ours_and_does_not_hide_one(package: Path) -> None:
    protocols = fresh(PROTOCOLS)
    assert protocols.names() == ("user", "temporal", "weekly")
    assert "weekly" in protocols and protocols.load("weekly")(None, None) == "weeks"
    assert protocols.load("user").__module__ == "kar_aug.data.split"


def test_a_module_and_attribute_is_a_name(package: Path) -> None:
    protocols = fresh(PROTOCOLS)
    assert "theirs:by_week" in protocols and protocols.load("theirs:by_week")(None, None) == "weeks"


@pytest.mark.parametrize("name", ["weekly", "nowhere:by_week", "theirs:", ":x", "", "a.b.c:x"])
def test_what_is_no_name_is_refused_with_those_that_are(name: str) -> None:
    assert name not in PROTOCOLS
    with pytest.raises(ConfigError, match=r"there is no protocol .*\. Known: user, temporal"):
        PROTOCOLS.load(name)


@pytest.mark.parametrize(("name", "words"), [("theirs:by_month", "by_month"), ("broken:x", "nowhere_to_be_found")])
def test_what_cannot_be_loaded_says_why(package: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"protocol '{name}' cannot be loaded: .*{words}"):
        fresh(PROTOCOLS).load(name)


def test_a_member_of_a_family_is_named_after_it() -> None:
    assert "openvino:a/b" in ENCODERS and "openvino:" not in ENCODERS and "openvino" not in ENCODERS
    assert ENCODERS.load("openai:small").args == ("small",)
    with pytest.raises(ConfigError, match="Known: sentence-transformers:NAME, openvino:NAME"):
        ENCODERS.load("openvno:a/b")


def test_names_are_known_without_importing_a_framework() -> None:
    code = """
import sys
from kar_aug import registry
from kar_aug.config import Config
names = [value.names() for value in vars(registry).values() if isinstance(value, registry.Registry)]
assert len(names) >= 8 and all(names)
assert not {"tensorflow", "sentence_transformers", "torch", "pandas", "sqlalchemy"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", REGISTRIES)
@pytest.mark.slow
def test_every_name_of_ours_leads_somewhere(name: str) -> None:
    for choice in REGISTRIES[name]:
        may_lack = (MissingDependencyError,) if choice in ("ray", "spark") else ()  # which take a gigabyte
        with suppress(*may_lack):
            assert callable(REGISTRIES[name].load(f"{choice}x" if choice.endswith(":") else choice))


def test_a_data_set_a_protocol_and_a_selection_of_others_are_used_by_where_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_shop.py").write_text(
        """
import pandas as pd
from kar_aug.data import Tables

def log(folder, path=None):
    rows = [{"user_id": user, "item_id": item, "rating": 5 if item % 2 else 1, "timestamp": 10 * item + user}
            for user in range(4) for item in range(8)]
    return Tables(pd.DataFrame(rows), pd.DataFrame({"item_id": range(8), "title": [f"Book {i}" for i in range(8)]}))

def by_parity(frame, shares):
    parts = {0: "history", 1: "train", 2: "validation", 3: "test"}
    return (frame["timestamp"] // 20).map(lambda pair: parts[pair % 4])

def first(item_ids, ratings, vectors):
    return lambda shown, rated, most: list(range(min(most, len(shown))))
"""
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    project = Project(
        {
            "data": {"dataset": "a_shop:log", "protocol": "a_shop:by_parity"},
            "prompts": {"scenario": "books", "selection": "a_shop:first", "max_events": 1},
            "workdir": str(tmp_path / "work"),
        }
    )
    split = project.workspace.data.split
    assert set(split[split["part"] == "history"]["item_id"]) == {0, 1}
    for prompt in project.prompts("user"):
        assert "Book 0" in prompt.text and "Book 1" not in prompt.text, "the first of two, where ours show the latest"
