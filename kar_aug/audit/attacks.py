"""Texts of the tables that speak to a language model instead of saying what an item is.

Whoever may write a title can try to instruct the model that reads it (indirect prompt injection, Greshake et al. 2023,
arXiv:2302.12173). Prompts show data between marks that no value can close, and say that data are no instruction; a
model may follow it all the same. So a person should look at what is written like one.

The rules are few, and each needs several words to meet, since films and books are called almost anything ("Forget All
the Rules", "System Crash", "The Assistant"): what they find is worth reading, and what is subtle they do not find. Text
is compared without what hides words from readers: invisible characters, look-alikes of other widths.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

import pandas as pd

from kar_aug.audit.findings import Check, Finding, shown
from kar_aug.data.cells import text_of

_MOST = 50  # findings that are listed one by one
_EXCERPT = 80  # characters
_BEFORE = r"(?:previous|prior|above|earlier|preceding|foregoing|system|initial|original|safety)"
_ORDERS = r"(?:instructions?|prompts?|commands?|directives?)"
_MODEL = r"(?:language model|chatbot|chatgpt|gpt-?\d\w*|(?:ai|helpful|virtual|unfiltered) (?:ai )?assistant)"
_NOT_OF_A_PERSON = r"(?<!\bi\s)(?<!\bwe\s)(?<!would\s)(?<!highly\s)(?<!can\s)(?<!\bto\s)"
_OF_A_USER = r"(?:data|history|prompt|conversation|profile|answers?|ratings|results)"
_RULES = {
    "tells a model to ignore its instructions": (
        rf"\b(?:ignore|disregard|forget|override|bypass)\s+(?:(?:all|any|the|of|your|my|these|those|and)\s+)*"
        rf"{_BEFORE}\s+(?:\w+\s+)?(?:{_ORDERS}|rules|guidelines|context|messages?)\b",
        rf"\b(?:ignore|disregard|override|bypass)\s+(?:all\s+)?(?:of\s+)?(?:your|the|these|any)\s+{_ORDERS}\b",
        r"\b(?:ignorier\w*|vergiss|vergessen sie|missachte)\s+(?:\w+\s+){0,2}"
        r"(?:vorherig|bisherig|vorig|obig|frühere)\w*\s+(?:anweisung|instruktion|befehl|regel)\w*",
        r"\b(?:ignore[zr]?|oublie[zr]?)\s+(?:toutes\s+)?(?:les|tes|vos)\s+(?:instructions|consignes)\b",
        r"\b(?:ignora|ignore|olvida)\s+(?:todas\s+)?(?:las|tus|sus)\s+instrucciones\b",
        r"忽略.{0,6}(?:指令|提示|说明)|以前の指示.{0,4}無視",
    ),
    "marks a role of a conversation": (
        r"<\|\s*(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id)\s*\|>",
        r"\[/?inst\]|<</?sys>>",
        r"</?(?:system|assistant|instructions?|system_prompt|data)>",
        r"(?:^|\n)\s*#{3,}\s*(?:system|instruction|assistant)\s*:",
        r"\n\s*(?:assistant|human)\s*:\s*\S",
        r"(?:^|\n)\s*system\s*:\s*(?:you|ignore|always|rate|rank|answer|respond)\b",
        r"[\"']role[\"']\s*:\s*[\"'](?:system|assistant|user)[\"']",
    ),
    "tells a model what it is": (
        rf"\byou\s+are\s+(?:now\s+)?(?:an?\s+)?(?:\w+\s+)?{_MODEL}\b(?!\s*\W?s\b)",
        rf"\byou\s+are\s+now\s+(?:an?\s+)?(?:\w+\s+)?(?:ai|llm|{_MODEL})\b",
        rf"\b(?:act|behave|respond)\s+as\s+(?:an?\s+|the\s+)?(?:\w+\s+)?(?:ai|llm|{_MODEL}|system administrator)\b",
        r"\b(?:dear|attention|note to(?: the)?|message to(?: the)?|instructions? for(?: the)?)[\s,:]+"
        r"(?:ai|llm|language model|recommender|recommendation)(?:s|\s+(?:model|system|assistant))?\b\s*[:,.!]",
    ),
    "asks a model for what it must not tell": (
        r"\b(?:reveal|print|repeat|output|leak|disclose|show)\s+(?:\w+\s+){0,3}"
        r"(?:system prompt|your (?:instructions|prompt)|api keys?|hidden prompt)\b",
    ),
    "tells a model what to answer": (
        r"\b(?:respond|answer|reply|output)\s+(?:only|just|exclusively|nothing but)\s+(?:with|the\s+(?:word|text))\b",
        r"\b(?:rank|rate|score)\s+(?:this|it)\s+(?:\w+\s+)?(?:first|highest|at the top|number one|above all)\b",
        rf"{_NOT_OF_A_PERSON}\brecommend\s+(?:this|it)\s+(?:\w+\s+)?to\s+(?:all|every|any)\s+users?\b",
        r"\b(?:you must(?: always)?|you should always|must always)\s+(?:recommend|rank|rate)\s+(?:this|it)\b",
    ),
    "sends a model to an address": (
        r"!\[[^\]]*\]\(\s*https?://",
        rf"\b(?:send|post|forward|append|exfiltrate|upload)\s+(?:the\s+)?(?:users?\W?s?|this|their|whole|entire)\s+"
        rf"(?:\w+\s+){{0,3}}?{_OF_A_USER}\b.{{0,40}}https?://",
        r"\b(?:fetch|load|read|retrieve)\b.{0,30}https?://\S+\s+(?:and|then)\s+(?:follow|execute|run|obey|do what)\b",
    ),
}
_ANY = re.compile(
    "|".join(f"(?P<rule{number}>{'|'.join(rules)})" for number, rules in enumerate(_RULES.values())),
    re.IGNORECASE | re.DOTALL,
)
_NAMES = list(_RULES)
_HIDDEN = "holds hidden characters, which models read and people do not see"
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
# ASCII in disguise (Unicode's tag characters), but for flags as that of England; or long runs of nothing.
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{2,6}\U000e007f")
_DISGUISED = re.compile("[\U000e0000-\U000e007f]{2,}|[\u200b\u2060-\u2064\ufeff]{4,}")


def attacks(text: str) -> Iterator[tuple[str, str]]:
    """What in a text speaks to a model: (what it does, where it says so), each rule once."""
    if _DISGUISED.search(_FLAG.sub("", text)):
        yield _HIDDEN, text
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    seen: set[str] = set()
    for found in _ANY.finditer(plain):
        name = _NAMES[int(str(found.lastgroup).removeprefix("rule"))]
        if name not in seen:
            seen.add(name)
            start = max(0, found.start() - _EXCERPT // 4)
            yield name, " ".join(plain[start : start + _EXCERPT].split())


def speaking_texts(entity: str, table: pd.DataFrame, fields: Sequence[str]) -> Check:
    """Values that speak to a model, in the fields of a table that prompts show."""
    key = f"{entity}_id"
    there = [field for field in dict.fromkeys(fields) if field in table and not _is_number(table[field])]
    findings: list[Finding] = []
    more = 0
    for field in there:
        said: dict[str, list[tuple[str, str]]] = {}  # what many share, a genre, is read once
        for id, cell in zip(table[key].tolist(), table[field].tolist(), strict=True):
            text = text_of(cell)
            if text not in said:
                said[text] = list(attacks(text)) if text else []
            for what, where in said[text]:
                if len(findings) < _MOST:
                    words = f"{entity} {shown(id)}, {field!r} {what}."
                    findings.append(Finding("attack", 1, words, repr(where[:_EXCERPT])))
                else:
                    more += 1
    if more:
        findings.append(Finding("attack", more, f"{more:,} more values of {entity}s speak to a model."))
    return Check(f"{entity}s' texts speak to no model", len(table) * len(there), "values", warnings=tuple(findings))


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column)
