"""Re-ranking with knowledge, from an impression log to a served list, on data that it makes: about a minute.

Users like one of two kinds of things, which no column says: the knowledge of items does. A page shows six.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from kar_aug import Project, VectorStore
from kar_aug.cache import StoreSpec

USERS, ITEMS, PAGES, SHOWN = 120, 60, 12, 6
random = np.random.default_rng(0)
taste, kind = random.integers(0, 2, USERS), random.integers(0, 2, ITEMS)
pages = [
    (user, item, 3600 * page, f"{user}-{page}", place, float(taste[user] == kind[item] and random.random() < 0.8))
    for user in range(USERS)
    for page in range(PAGES)
    for place, item in enumerate(random.choice(ITEMS, SHOWN, replace=False), start=1)
]
names = ["user_id", "item_id", "timestamp", "impression_id", "position", "label"]
log = pd.DataFrame(pages, columns=pd.Index(names))

with tempfile.TemporaryDirectory() as folder:
    settings = {
        "workdir": folder,
        "data": {"lists": "impressions", "history": 18, "events": "clicks", "validation": 0.2, "test": 0.2},
        "compare": {
            "task": "rerank", "backbones": ["PRM"], "knowledge": ["item"], "controls": ["shuffled"], "seeds": 1,
            "injections": ["similarity"], "jobs": 1, "epochs": 6, "batch_size": 32, "learning_rate": 0.01,
            "embedding_dim": 8, "hidden_units": [16],
        },
    }  # fmt: skip
    project = Project(settings, interactions=log, items=pd.DataFrame({"item_id": range(ITEMS)}))
    # In earnest: project.generate(); project.encode()
    with VectorStore.writer(project.workspace.store_path("item"), StoreSpec("made", 2)) as writer:
        writer.append(list(range(ITEMS)), ["made"] * ITEMS, np.eye(2)[kind])
    done = project.compare()
    print(done)
    print(done.table()[["arm", "map@7", "ndcg@7", "hr@1"]].round(4).to_string(index=False))

    import tensorflow as tf

    serve = tf.saved_model.load(str(project.export(Path(folder) / "serving", "PRM"))).signatures["serving_default"]
    first = log[log["user_id"] == 0]
    before, shown = first[:-SHOWN], first[-SHOWN:]
    clicked = before[before["label"] > 0]
    asked = {  # what kar_aug.json in the folder says
        "item_id": tf.constant([shown["item_id"]], tf.int64),
        "timestamp": tf.constant([shown["timestamp"].iloc[0]], tf.float64),
        "hist_item_id": tf.constant([clicked["item_id"]], tf.int64),
        "hist_timestamp": tf.constant([clicked["timestamp"]], tf.float64),
        "past_item_id": tf.constant([before["item_id"]], tf.int64),
        "past_label": tf.constant([before["label"]], tf.float64),
    }
    known = serve.structured_input_signature[1]
    scores = serve(**{name: values for name, values in asked.items() if name in known})["scores"].numpy()[0]
    served = shown[["item_id", "position", "label"]].assign(
        liked=taste[0] == kind[shown["item_id"]], score=scores.round(3)
    )
    print(served.sort_values("score", ascending=False, kind="stable").to_string(index=False))
