"""The whole job, from ratings to verdicts: what `make demo` does, in Python.

It runs as it stands, with a small language model on this machine; MovieLens-100K is fetched. With a kar.toml as
argument, `python 2_the_whole_job.py kar.toml`, it does the same on your data.
"""

import sys

from kar_aug import Project, Watch

DEMO = {
    "workdir": ".kar/demo",
    "data": {"dataset": "movielens-100k", "user_features": ["gender", "age"], "item_features": ["genres", "year"]},
    "prompts": {"scenario": "movies", "max_events": 5, "max_users": 250, "max_items": 500},
    "generate": {"model": "SmolLM2-135M-Instruct", "base_url": "local", "max_tokens": 64, "accept_truncated": True},
    "compare": {"controls": [], "seeds": 3, "batch_size": 2048, "learning_rate": 0.002, "patience": 1},
}

# Ten lines. Stopped and started again, each stage goes on where it was.
watch = Watch(on_note=print)
project = Project.open(sys.argv[1], watch=watch) if sys.argv[1:] else Project(DEMO, watch=watch)
print(project.prompts("item").of().text)  # what is asked about an item
print(project.generate())
project.encode()
print(project.audit())
compared = project.compare()
print(compared.verdicts)
compared.write("report.html")
print(project.inspect.vectors().frame)
