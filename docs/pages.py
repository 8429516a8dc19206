"""What the site is made of, for MkDocs: docs/, and the pages of the checkout that README and docs/ link to.

A link in a page is the way from its file to another, as readers of the checkout follow it. Here it becomes the way
between the two on the site. README is the site's first page, docs/ its root; what else is linked keeps its path.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "kar_aug": "kar_aug",
    "kar_aug/backbones": "backbones",
    "kar_aug/prompts": "prompts",
    "kar_aug/cache": "cache",
}
PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/results/*.md"]
ATTACHED = [
    "LICENSE",
    "CITATION.cff",
    "benchmarks/results/*.svg",
    "examples/*.py",
    "kar_aug/cli/*.toml",
    "kar_aug/generate/prices.toml",
]
_installed = tempfile.TemporaryDirectory(prefix="kar-aug-docs-")
_LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


@event_priority(100)  # before mkdocstrings reads its settings
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Show mkdocstrings the package as it is installed, with the mapped folders below `kar_aug`.

    It reads examples under the title that griffe knows.
    """
    installed = Path(_installed.name)
    shutil.rmtree(installed / "kar_aug", ignore_errors=True)
    for place, folder in PACKAGES.items():
        shutil.copytree(ROOT / folder, installed / place, ignore=shutil.ignore_patterns("__pycache__"))
    for path in installed.rglob("*.py"):
        path.write_text(re.sub(r"^( *)Example:$", r"\1Examples:", path.read_text("utf-8"), flags=re.MULTILINE), "utf-8")
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(installed)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in the pages and the attached files."""
    for path in (path for pattern in [*PAGES, *ATTACHED] for path in sorted(ROOT.glob(pattern))):
        place = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, _on_site(place), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the page's links to where their files are on the site. Code is left as it is."""
    here = _in_checkout(page.file.src_uri)

    def led(link: re.Match[str]) -> str:
        there = _on_site(posixpath.normpath(posixpath.join(posixpath.dirname(here), link[2])))
        return f"{link[1]}{posixpath.relpath(there, posixpath.dirname(page.file.src_uri) or '.')}{link[3] or ''})"

    parts = _CODE.split(markdown)
    return "".join(part if number % 2 else _LINK.sub(led, part) for number, part in enumerate(parts))


def _on_site(place: str) -> str:
    return "index.md" if place == "README.md" else place.removeprefix("docs/")


def _in_checkout(place: str) -> str:
    if place == "index.md":
        return "README.md"
    return f"docs/{place}" if (ROOT / "docs" / place).exists() else place
