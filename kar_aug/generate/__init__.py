"""Ask the language model, offline: a job that keeps every answer, asks nothing twice, and knows what it costs.

intake      what prompts are open, what an answer or a failure means: decided here for every way of asking
questions   prompts as questions with a key           job         concurrent requests
answers     the raw body, and what it is worth        batch       the Batch API
choices     what it says, whoever served it           jsonl       files of requests and responses
usage       the tokens that it is charged by          line_files  such files, packed or recoded
judging     stored answers, read again                cost        tokens and US dollars, by a table of prices
remarks     what to say of an answer, and mend        dry_run     what a job would ask, and cost
faults      what went wrong, by whose fault           local       a small model on this machine
streak      refusals in a row                         summaries   long histories, part by part
server      one request                               factors     which factors decide, proposed by models
limits      requests and tokens a minute, in all
structured  answers that must fit a JSON schema
"""

from kar_aug._helpers.stage import make_callable
from kar_aug.generate.batch import forget_batch, generate_batches
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
    "forget_batch",
    "generate",
    "generate_batches",
    "import_jsonl",
    "question_key",
]

make_callable(__name__)
