"""Knowledge for your own tables, by batches and within a budget; then a user who wants to be forgotten.

It runs as it stands: a scripted server on this machine stands for the provider, and knows OpenAI's Batch API. With
`base_url` left out and OPENAI_API_KEY set, the same lines ask OpenAI.
"""

import os
import tempfile

import numpy as np
import pandas as pd

from kar_aug import Project, Watch
from kar_aug.testing import OpenAIServer

rng = np.random.default_rng(0)
books = pd.DataFrame({"item_id": range(30), "title": [f"Book {n}" for n in range(30)]})
books["authors"] = [f"Author {n % 6}" for n in range(30)]
log = pd.DataFrame({"user_id": rng.integers(0, 40, 1200), "item_id": rng.integers(0, 30, 1200)})
log["timestamp"] = np.arange(1200)
log["rating"] = 1 + (log["user_id"] + log["item_id"]) % 5

os.environ.setdefault("OPENAI_API_KEY", "no key: nothing leaves this machine")
with OpenAIServer(says=lambda prompt: "Liked by those who like " + prompt[prompt.find("Book") :][:70]) as server:
    settings = {
        "workdir": tempfile.mkdtemp(),
        "data": {"item_features": ["authors"]},
        "prompts": {"scenario": "books", "max_events": 10},
        "generate": {"model": "gpt-4o-mini", "base_url": server.base_url, "max_cost": 1.0, "max_tokens": 200},
        "encode": {"encoder": "kar_aug.testing:hash_encoder"},
    }
    project = Project(settings, interactions=log, items=books, watch=Watch(on_note=print))

    print(project.dry_run())  # what it costs at most; nothing is sent
    print(project.generate("item"))  # requests, within max_cost
    print(project.generate("user", batch=True, poll_seconds=0.1))  # half the price
    print(project.cost())
    print(project.cache.verify())  # answers that are empty, refused, cut off, or plainly wrong
    project.encode()

    print(project.forget(users=[7], dry_run=True))
    project.forget(users=[7])
    print("left out:", 7 not in project.workspace.tables.ids("user"))
