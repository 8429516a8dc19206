"""What a person should know of an answer that is no knowledge, or less than it could be, and the setting that mends it.

One sentence a kind, without numbers of the single answer, so that they can be counted.
"""

from __future__ import annotations

from kar_aug.cache import Answer, Status
from kar_aug.config import LanguageModel
from kar_aug.generate.choices import End, document_of, read_said

_CUT_PROMPT = (
    "the server cut the prompt: it counts far fewer tokens than were sent. Raise its context window (num_ctx of "
    "Ollama, --ctx-size of llama.cpp, --max-model-len of vLLM), or lower [prompts] max_events"
)


def remarks_on(answer: Answer, model: LanguageModel) -> list[str]:
    """Sentences that follow "answer: "; none for most answers."""
    found = [_CUT_PROMPT] if answer.prompt_was_cut else []
    if answer.status == Status.TRUNCATED and not model.accept_truncated:
        found.append(
            f"cut off by max_tokens = {model.max_tokens}. Raise [generate] max_tokens, or set accept_truncated = true"
        )
    elif answer.status == Status.EMPTY:
        found.append(_why_empty(answer, model))
    elif answer.status == Status.UNFINISHED:
        found.append(f"{why_unfinished(answer)}: kept, and no knowledge")
    elif answer.status == Status.MALFORMED:
        found.append(f"{why_unfinished(answer)}: kept as it came")
    return found


def why_unfinished(answer: Answer) -> str:
    """How an answer ended that is not whole."""
    said = read_said(document_of(answer.raw))
    if said is None:
        is_stream = answer.raw.lstrip().startswith((b"data:", b"event:"))
        return "a stream, which was not asked for" if is_stream else "not to be read as an answer"
    if said.end is End.UNKNOWN:
        return f"ended by finish_reason {said.reason!r}, which kar-aug does not know"
    return f"ended early: {said.reason[:200]}"


def _why_empty(answer: Answer, model: LanguageModel) -> str:
    said = read_said(document_of(answer.raw))
    if said is not None and said.end is End.CUT:
        used = "the model's reasoning used up" if said.reasoned else "nothing was said within"
        return f"empty, since {used} max_tokens = {model.max_tokens}. Raise [generate] max_tokens"
    if said is not None and said.reasoned:
        return "empty beside its reasoning, which is no knowledge"
    return "empty"
