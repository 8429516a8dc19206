"""Ask the language model, offline: a job that keeps every answer, asks nothing twice, and knows what it costs.

intake      what prompts are open, what an answer or a failure means: decided here for every way of asking
questions   prompts as questions with a key           job         concurrent requests
answers     the raw body, read                        batch       the Batch API
faults      what went wrong, by whose fault           jsonl       files of requests and responses
server      one request                               dry_run     what a job would ask, and cost
usage       the tokens that a server charges for      cost        tokens and US dollars, by a table of prices
limits      requests and tokens a minute, in all      local       a small model on this machine
structured  answers that must fit a JSON schema       summaries   long histories, part by part
factors     which factors decide, proposed by models
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
