"""What a limit on the bill holds against, what is understood of a server's answers, and what a refusal looks like.

    python benchmarks/bill.py    # about a minute on 2 cores; prints tables of benchmarks/results/bill.md

Nothing in them is typed but names: a server on this machine counts what it answered, the lists are those that the code
reads by, and each refusal is the line that a job ended with.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from kar_aug.cache import TextCache
from kar_aug.config import LanguageModel
from kar_aug.errors import KarError
from kar_aug.generate import Prices, choices, generate, generate_batches, usage
from kar_aug.prompts import Prompt
from kar_aug.testing import ChatServer, completion
from kar_aug.testing.batches import BatchServer, Line, Outcome, answered
from kar_aug.testing.openai_server import OpenAIServer

LIMIT = 0.1  # US dollars
KEY = "sk-planted-key-0123456789"
TOKENS = {"prompt_tokens": 7, "completion_tokens": 10, "total_tokens": 17}
EACH = (7 * 100 + 10 * 200) / 1e6  # US dollars for these
SCHEMA = {"type": "object", "additionalProperties": False, "required": ["a"], "properties": {"a": {"type": "string"}}}
Said = tuple[int, dict[str, str], bytes]


def prompts(count: int, text: str = "entity {}") -> Iterator[Prompt]:
    """Prompts about entities 0 ... count - 1."""
    return (Prompt("item", i, ({"role": "user", "content": text.format(i)},), "v1") for i in range(count))


def said(tokens: Any, text: str = "A film.") -> Said:
    """An answer that counts its tokens so."""
    return 200, {}, json.dumps({**json.loads(completion(text, model="m")), "usage": tokens}).encode()


class Bench:
    """Makes caches, and asks as a user would who has set `max_cost`."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._caches = folder, 0
        path = folder / "prices.toml"
        path.write_text("[models.m]\nprompt = 100\ncompletion = 200\n", encoding="utf-8")
        self.prices = Prices(path)

    def cache(self) -> TextCache:
        """A new one."""
        self._caches += 1
        return TextCache(self._folder / f"{self._caches}.sqlite")

    def model(self, base_url: str, **changes: Any) -> LanguageModel:
        """One request costs at most little more than it does."""
        settings = {"concurrency": 8, "max_tokens": 10, "tries": 1, "max_cost": LIMIT, "timeout": 30}
        return LanguageModel(**{"model": "m", "base_url": base_url, **settings, **changes})

    def ask(
        self, base_url: str, cache: TextCache, asked: Iterable[Prompt], *, retry: bool = False, **changes: Any
    ) -> str:
        """What it said in the end."""
        model = self.model(base_url, **changes)
        try:
            return str(generate(asked, cache, model, key=KEY, prices=self.prices, retry_failed=retry))
        except KarError as error:
            return str(error)

    def batch(self, base_url: str, cache: TextCache, asked: Iterable[Prompt], **changes: Any) -> None:
        """The same by batches."""
        wait, model = changes.pop("wait", True), self.model(base_url, **changes)
        with contextlib.suppress(KarError):
            generate_batches(asked, cache, model, key=KEY, prices=self.prices, wait=wait, poll_seconds=0.01)


# Ways to cross a limit: what a server charges, in US dollars. Beside each, what it charged at a limit of $1.00 before
# there was a ledger.


def eight_jobs(bench: Bench) -> float:
    with ChatServer(lambda *_: said(TOKENS), latency=0.02) as server:
        where = Path(bench.cache().name)

        def job(_: int) -> None:
            with TextCache(where) as cache:
                bench.ask(server.base_url, cache, prompts(200))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(job, range(8)))
        return len(server.requests) * EACH


def counted(behaviour: Callable[..., Said], runs: int = 1, each: float = EACH, **more: Any) -> Callable[[Bench], float]:
    """Runs against one server; each has its own prompts if `text` says so, and what is nobody's is deleted."""
    text, retry, count = more.pop("text", "entity {}"), more.pop("retry", False), more.pop("count", 60)

    def work(bench: Bench) -> float:
        with ChatServer(behaviour) as server, bench.cache() as cache:
            for run in range(runs):
                bench.ask(server.base_url, cache, prompts(count, text.replace("RUN", str(run))), retry=retry, **more)
                cache.prune()
            return len(server.requests) * each

    return work


def lost(*_: Any) -> Said:
    raise ConnectionResetError


def beside_a_batch(bench: Bench) -> float:
    chat, batches = ChatServer(lambda *_: said(TOKENS)), BatchServer(polls=10**6)
    with OpenAIServer(chat=chat, batches=batches) as server, bench.cache() as cache:
        bench.batch(server.base_url, cache, list(prompts(60)), wait=False)
        running = sum(len(server.batches.requests(made)) for made in server.batches.batches.values())
        bench.ask(server.base_url, cache, prompts(60, "other {}"))
        return len(server.chat.requests) * EACH + running * EACH / 2


def misfits(requests: list[Line]) -> Outcome:
    return "completed", [answered(request, "no JSON") for request in requests], []


def repairs(bench: Bench) -> float:
    with BatchServer(misfits) as server, bench.cache() as cache:
        bench.batch(server.base_url, cache, [replace(prompt, schema=SCHEMA) for prompt in prompts(60)])
        return sum(server.charged.values()) * (7 * 100 + 3 * 200) / 2e6


LONG = {"prompt_tokens": 7, "completion_tokens": 50, "total_tokens": 57}
WAYS: list[tuple[str, str, Callable[[Bench], float]]] = [
    ("8 jobs at once on one cache", "7.70", eight_jobs),
    ("no `usage` in the answers, 5 runs", "3.52", counted(lambda *_: said(None), 5, text="RUN of {}")),
    ("`usage` as 7.0 and \"10\"", "14.80", counted(lambda *_: said({"prompt_tokens": 7.0, "completion_tokens": "10"}))),
    ("`usage` as input_tokens", "14.80", counted(lambda *_: said({"input_tokens": 7, "output_tokens": 10}))),
    ("requests that are lost, 6 runs", "4.18", counted(lost, 6)),
    ("`--retry-failed` of empty answers, 7 times", "2.29",
     counted(lambda *_: said(TOKENS, ""), 7, retry=True, count=15)),
    ("other prompts and `cache prune`, 4 rounds", "2.96 of 1.60",
     counted(lambda *_: said(TOKENS), 4, text="RUN of {}")),
    ("a batch on its way, then `generate`", "1.67", beside_a_batch),
    ("`extra = { max_tokens = 50 }`, where settings say 10", "10.01",
     counted(lambda *_: said(LONG), each=(700 + 50 * 200) / 1e6, extra={"max_tokens": 50})),
    ("a batch whose answers do not fit, asked again", "1.68", repairs),
    ("thinking that no `usage` of completion counts", "unbounded",
     counted(lambda *_: said({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 17}))),
]  # fmt: skip


# Refusals


def error(status: int, body: Any, **headers: str) -> Said:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return status, headers, content


def after(count: int, then: Said) -> Callable[..., Said]:
    """A server that answers so many, then this."""
    return lambda server, request, number: said(TOKENS) if number < count else then


def words(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}


PAGE = b"<!DOCTYPE html><html><head><title>Open WebUI</title></head><body>...</body></html>"
REFUSALS: list[tuple[str, Callable[..., Said], dict[str, Any]]] = [
    ("401", after(0, error(401, words("Incorrect API key provided"))), {}),
    ("402", after(3, error(402, words("Insufficient balance"))), {}),
    ("403 after answers", after(3, error(403, words("Your account is suspended"))), {}),
    ("404", after(0, error(404, words("The model does not exist"))), {}),
    ("404, Azure", after(0, error(404, words("api-version query parameter is required"))), {}),
    ("400 for all, a parameter", after(0, error(400, [words('Unknown name "seed"')])), {}),
    ("400 for all, max_tokens", after(0, error(400, words("Use 'max_completion_tokens' instead."))), {}),
    ("422 for all, FastAPI", after(0, error(422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]})), {}),
    ("400 after answers, no credit", after(3, error(400, words("Your credit balance is too low"))), {}),
    ("400 for one prompt", lambda _, r, n: error(400, words("This violates our content policy"))
     if r["messages"][-1]["content"] == "entity 5" else said(TOKENS), {}),
    ("200, a web page", after(0, error(200, PAGE)), {}),
    ("200, an error", after(0, error(200, {"error": "model is not loaded"})), {}),
    ("200, cut JSON", after(0, error(200, b'{"choices": [{"message": {"content": "A fi')), {}),
    ("200, another model", after(0, (200, {}, completion("A film.", model="gpt-9"))), {}),
    ("429 for ever", after(3, error(429, words("Rate limit reached"))), {"give_up_after": 2}),
    ("429, wait a day", after(0, error(429, words("Quota"), **{"Retry-After": "86400"})), {}),
    ("503 for ever", after(0, error(503, words("Loading model"))), {"give_up_after": 2, "tries": 99}),
    ("a broken connection", lost, {}),
    ("no `usage`, max_cost", after(0, said(None)), {"max_cost": LIMIT}),
]  # fmt: skip


def refusal(bench: Bench, behaviour: Callable[..., Said], changes: dict[str, Any]) -> str:
    """The line that a job ends with."""
    with ChatServer(behaviour) as server, bench.cache() as cache:
        line = bench.ask(server.base_url, cache, prompts(60), **{"max_cost": None, **changes})
        return line.replace(server.base_url, "http://SERVER/v1")


def unreachable(bench: Bench) -> str:
    with ChatServer() as server:
        gone = server.base_url
    with bench.cache() as cache:
        return bench.ask(gone, cache, prompts(60), max_cost=None).replace(gone, "http://SERVER/v1")


# What is printed


def row(*cells: str) -> None:
    print("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")


def table(*columns: str) -> None:
    print()
    row(*columns)
    row(*("---" for _ in columns))


def named(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def understood() -> None:
    """The lists that answers are read by."""
    table("of an answer", "understood")
    row("whole (by letters alone: END_TURN is endturn)", named(sorted(choices.WHOLE)) + ", none at all")
    row("cut off", named(sorted(choices.CUT)))
    row("refused: words that hold", named(choices.REFUSED.pattern.split("|")))
    row("failed: words that hold", "`error`; " + named(sorted(choices.FAILED)) + "; an `error` beside the choice")
    row("every other word", "unfinished: kept, and no knowledge")
    row("content", "a text; a list of texts and of parts with a `text`; one part")
    row(
        "stands in",
        "`choices`; Anthropic's message (`content`), OpenAI's response (`output`), Gemini's `candidates`, "
        "the `message` of Ollama and Cohere",
    )
    row("parts that are thinking", named(choices.THINKING_PARTS) + ", `thought: true`")
    row("reasoning between", named(f"{opening} {closing}" for opening, closing in choices.TAGS))
    row("reasoning beside", named(choices.REASONING))
    row("usage stands in", named(usage.PLACES) + f", there in `{usage.BILLED}`, or beside the answer")
    row("tokens of the prompt", named(usage.PROMPT))
    row("of the answer", named(usage.COMPLETION))
    row("of both", named(usage.TOTAL))
    row("of a prefix cache", named(usage.CACHED) + " in " + named(usage.DETAILS) + ", " + named(usage.BESIDE))
    row("of thinking", named(usage.THINKING) + " in " + named(usage.THINKING_DETAILS) + ", " + named(usage.THOUGHTS))
    row("a count is written", '`7`, `7.0`, `"7"`; in any other way it is unknown, and the request counts at its most')


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        table("way to cross `--max-cost`", "charged before, of $1.00", f"charged now, of ${LIMIT:.2f}")
        for way, before, work in WAYS:
            charged = work(bench)
            row(way, before, f"{charged:.4f}" + (" **crossed**" if charged > LIMIT + 1e-9 else ""))
        understood()
        table("the server says", "the job's last line")
        for says, behaviour, changes in REFUSALS:
            row(says, refusal(bench, behaviour, changes))
        row("nothing: no connection", unreachable(bench))


if __name__ == "__main__":
    main()
