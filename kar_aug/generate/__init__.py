"""Ask the language model, offline: a job that keeps every answer, asks nothing twice, and knows what it costs.

questions   which prompts have no answer yet          job         concurrent requests
cost        tokens and US dollars                     batch       the Batch API
limits      requests and tokens a minute, budget      jsonl       files of requests and responses
server      one request, and what its errors mean     dry_run     what a job would ask, and cost
structured  answers that must fit a JSON schema
"""

from kar_aug._stage import make_callable
from kar_aug.generate.batch import generate_batches
from kar_aug.generate.cost import Price, Prices
from kar_aug.generate.dry_run import Estimate, estimate
from kar_aug.generate.job import generate
from kar_aug.generate.jsonl import export_jsonl, import_jsonl
from kar_aug.generate.progress import Progress
from kar_aug.generate.questions import question_key

__all__ = [
    "Estimate",
    "Price",
    "Prices",
    "Progress",
    "estimate",
    "export_jsonl",
    "generate",
    "generate_batches",
    "import_jsonl",
    "question_key",
]

make_callable(__name__)
