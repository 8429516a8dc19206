"""The public names: each there, documented, and never a module where something to call is meant."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import kar_aug
from kar_aug.config import Config
from kar_aug.pipeline.workspace import Workspace

NAMES = sorted(set(kar_aug.__all__) - {"__version__"})
STAGES = ("audit", "compare", "encode", "generate", "inspect")


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_a_documented_class_or_function(name: str) -> None:
    found = getattr(kar_aug, name)
    assert inspect.isclass(found) or inspect.isfunction(found)
    assert found.__name__ == name and found.__module__.startswith("kar_aug")
    assert len(inspect.getdoc(found) or "") > 20, f"{name} says too little of itself"
    assert name in dir(kar_aug)


def test_public_names_are_those_that_type_checkers_see() -> None:
    source = Path(kar_aug.__file__).read_text()
    seen = {line.rpartition(" as ")[2] for line in source.splitlines() if line.startswith("    from kar_aug")}
    assert seen == set(NAMES) and kar_aug.__version__


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError, match="'kar_aug' has no attribute 'comparee'"):
        _ = kar_aug.comparee
    with pytest.raises(ImportError):
        from kar_aug import nowhere  # noqa: F401


@pytest.mark.slow
def test_packages_called_after_what_they_do_can_be_called_however_they_were_imported() -> None:
    code = f"""
import kar_aug.compare.arms, kar_aug.generate.limits, kar_aug.audit, kar_aug.encode.job, kar_aug.inspect.nearest
from kar_aug import {", ".join(STAGES)}
import kar_aug
for name in {STAGES}:
    assert callable(globals()[name]) and globals()[name] is getattr(kar_aug, name), name
    assert not callable(kar_aug.data)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_calling_such_a_package_calls_its_function(own_tables: Path, tmp_path: Path) -> None:
    from kar_aug import audit, generate
    from kar_aug import inspect as look_at

    workspace = Workspace(Config.load(own_tables / "kar.toml", {"workdir": str(tmp_path)}))
    assert isinstance(audit, ModuleType) and "no leak found" in audit(workspace).verdict  # type: ignore[operator]
    assert look_at(workspace).answers()["ok"] == 0  # type: ignore[operator]
    with pytest.raises(TypeError, match="generate"):
        generate("kar.toml", model="x")  # type: ignore[operator]
