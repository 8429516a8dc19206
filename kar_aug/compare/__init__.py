"""Is the gain real? Every arm is trained the same way, with several seeds, and tested on rows it never saw.

    arms         which models are set side by side        additions     what an arm has more than its backbone
    controls     what a gain must beat to be knowledge    experiment    samples, vectors, fingerprints
    models       the model of an arm                      training      one training, on train and validation
    tuning       the search of settings, on validation    tasks         the resumable units
    workers      doing them, side by side                 book          finished units, in SQLite
    statistics   intervals and tests                      comparison    all runs together
    verdicts     what they say, in words                  slices        the same for cold and warm rows
    batches      samples as a model reads them            sanity        what any model must beat
    saved        the models of runs, as files             exporting     one of them, for serving
    order        in which an epoch reads them                objectives   what models are trained for and judged by:
    objective    what such a task is                         clicks       each sample for itself
    reranking    the order of a list                         list_metrics  what an order is judged by
    decomposition   what a gain is made of: behaviour, metadata, knowledge
    patience     when a training has had enough

An arm with a seed is a run. Finished runs are kept under the hash of all that decides their result, so that a
comparison started again trains only what is missing. Importing this package does not import TensorFlow.
"""

from kar_aug._helpers.stage import make_callable
from kar_aug.compare.arms import Arm, arms
from kar_aug.compare.book import Book, Run, Trial
from kar_aug.compare.comparison import Comparison, compare
from kar_aug.compare.decomposition import Ladder, decomposition
from kar_aug.compare.exporting import export_model, trained_model
from kar_aug.compare.slices import Slice, by_slice
from kar_aug.compare.tasks import Event
from kar_aug.compare.verdicts import Verdict, conclusions, doubts, headlines, leading, verdicts

__all__ = [
    "Arm",
    "Book",
    "Comparison",
    "Event",
    "Ladder",
    "Run",
    "Slice",
    "Trial",
    "Verdict",
    "arms",
    "by_slice",
    "compare",
    "conclusions",
    "decomposition",
    "doubts",
    "export_model",
    "headlines",
    "leading",
    "trained_model",
    "verdicts",
]

make_callable(__name__)
