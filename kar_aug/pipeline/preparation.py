"""What models read, made ready on the disk before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kar_aug._helpers.printed import Printed
from kar_aug.data.samples import ENTITIES, Samples
from kar_aug.data.split import SAMPLE_PARTS
from kar_aug.errors import DataError
from kar_aug.pipeline.workspace import Workspace
from kar_aug.pipeline.workspace.preparing import all_prepared, clean


@dataclass(frozen=True)
class Prepared(Printed):
    """The samples of a project, in a folder that all its trainings read.

    Args:
        work: the project's workdir, which has the samples of earlier settings and files, too.
    """

    samples: Samples = field(repr=False)
    folder: Path
    work: Path

    @property
    def others(self) -> list[Path]:
        """The folders of earlier ones, those used last first."""
        return [folder for folder in all_prepared(self.work) if folder != self.folder]

    def clean(self) -> int:
        """Delete all earlier ones, which would be made again where they are needed again.

        Returns:
            Bytes that are free now.
        """
        freed = sum(map(size, self.others))
        clean(self.work, but=self.folder)
        return freed

    def __str__(self) -> str:
        samples = self.samples
        parts = ", ".join(f"{len(samples.of(part)):,} {part}" for part in SAMPLE_PARTS)
        users, items = (len(samples.columns[f"{entity}_id"].values) - 1 for entity in ENTITIES)
        lines = [
            f"{len(samples.timestamps):,} events, {users:,} users, {items:,} items; samples: {parts}",
            f"{self.folder}: {_megabytes(size(self.folder))}",
        ]
        if others := self.others:
            lines.append(f"{len(others)} of earlier settings or files: {_megabytes(sum(map(size, others)))}")
        return "\n".join(lines)


def prepare(workspace: Workspace) -> Prepared:
    """Make the samples of a project, if they are not there.

    Raises:
        DataError: They are kept in no folder: a data set by others' code says not when it changes.
    """
    folder = workspace.data.prepared
    if folder is None:
        raise DataError(
            f"The data set {workspace.config.data.dataset!r} is made by code that says not when it changes: it is read "
            "by each process anew. Give the files that it reads: [data] path = ..."
        )
    return Prepared(workspace.samples, folder, workspace.config.work)


def size(folder: Path) -> int:
    """Bytes of a folder's files."""
    return sum(file.stat().st_size for file in folder.iterdir())


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
