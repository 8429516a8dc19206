"""The mapped folders are whole: in setup.cfg, for type checkers, and in a wheel that works from anywhere."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("kar_aug", "backbones", "prompts", "cache")


def unlisted_packages(root: Path) -> set[str]:
    """Packages in the mapped folders that setup.cfg does not list, or lists and are not there."""
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg", encoding="utf-8")
    mapping = dict(line.split(" = ") for line in setup["options"]["package_dir"].strip().splitlines())
    found = set()
    for package, folder in mapping.items():
        for init in (root / folder).rglob("__init__.py"):
            found.add(".".join([package, *init.parent.relative_to(root / folder).parts]))
    return found ^ set(setup["options"]["packages"].split())


def copy_of_the_checkout(folder: Path) -> Path:
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def run(*command: str, folder: Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=clean | environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from an sdist, so that both hold all that is needed."""
    source, out = copy_of_the_checkout(tmp_path_factory.mktemp("checkout")), tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source), folder=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("target")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    run(*pip, str(wheel), folder=target)
    return target


def test_every_package_is_listed() -> None:
    assert unlisted_packages(ROOT) == set()


@pytest.mark.parametrize("forgotten", ["backbones/sequence", "kar_aug/layers/deep/er", "prompts/templates"])
def test_a_forgotten_package_is_noticed(tmp_path: Path, forgotten: str) -> None:
    copy_of_the_checkout(tmp_path)
    assert unlisted_packages(tmp_path) == set()
    (tmp_path / forgotten).mkdir(parents=True)
    (tmp_path / forgotten / "__init__.py").touch()
    name = forgotten.replace("/", ".")
    assert unlisted_packages(tmp_path) == {name if name.startswith("kar_aug.") else f"kar_aug.{name}"}


def test_a_removed_package_is_noticed(tmp_path: Path) -> None:
    shutil.rmtree(copy_of_the_checkout(tmp_path) / "cache")
    assert unlisted_packages(tmp_path) == {"kar_aug.cache", "kar_aug.cache.texts", "kar_aug.cache.vectors"}


@pytest.mark.skipif(not (ROOT / "typings").exists(), reason="an sdist has no links")
def test_type_checkers_find_the_mapped_folders() -> None:
    links = {link.name: link for link in (ROOT / "typings" / "kar_aug").iterdir()}
    assert set(links) == {"backbones", "prompts", "cache"}
    for name, link in links.items():
        assert link.is_symlink() and not link.readlink().is_absolute()
        assert link.resolve() == ROOT / name and (link / "__init__.py").is_file()


def test_a_wheel_holds_all_code_and_data_and_nothing_else(wheel: Path) -> None:
    expected = {"kar_aug/py.typed"}
    for folder in FOLDERS:
        package = "kar_aug" if folder == "kar_aug" else f"kar_aug/{folder}"
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".toml", ".j2", ".html"):
                expected.add(f"{package}/{path.relative_to(ROOT / folder).as_posix()}")
    assert {"kar_aug/prompts/scenarios/movies.toml", "kar_aug/cli/template.toml", "kar_aug/cli/demo.toml"} < expected
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected


def test_the_installed_wheel_works_from_another_folder(installed: Path, tmp_path: Path) -> None:
    code = """
import importlib.util, sys
from pathlib import Path
import kar_aug, kar_aug.cache, kar_aug.cli, kar_aug.prompts
from kar_aug import Scenario, TextCache, VectorStore
from kar_aug.config import Config
target = Path(sys.argv[1])
files = [module.__file__ for module in (kar_aug, kar_aug.cache, kar_aug.cli, kar_aug.prompts)]
files.append(importlib.util.find_spec("kar_aug.backbones").origin)
assert all(Path(file).is_relative_to(target) for file in files), files
assert "Fargo" in Scenario.load("movies").item_prompt(1, {"title": "Fargo"}).text
assert Config.load(Path(kar_aug.__file__).parent / "cli" / "template.toml").data.dataset
TextCache("answers.sqlite").close()
print(kar_aug.__version__)
"""
    # -S keeps the editable install of this checkout out; what kar_aug depends on is appended behind the target.
    dependencies = os.pathsep.join(path for path in sys.path if path.endswith("-packages"))
    path = os.pathsep.join([str(installed), dependencies])
    output = run(sys.executable, "-S", "-c", code, str(installed), folder=tmp_path, PYTHONPATH=path)
    (metadata,) = installed.glob("kar_aug-*.dist-info")
    assert metadata.name == f"kar_aug-{output.strip()}.dist-info"


def test_the_installed_command_starts(installed: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(installed), *(path for path in sys.path if path.endswith("-packages"))])
    run(sys.executable, "-S", "-m", "kar_aug", "init", folder=tmp_path, PYTHONPATH=path)
    assert (tmp_path / "kar.toml").read_bytes() == (ROOT / "kar_aug" / "cli" / "template.toml").read_bytes()
