r"""Reference answers before training: can the judge read them, do they equal themselves, does a wrong answer pass?

One that cannot be read pays everybody with the paper's rewards and nobody with the corrected ones. Some are of kinds
that judges are known to misread. `e-notation` is the worst: math-verify and lighteval read `4.5e33` as 4.5 e + 33, so
the right answer 4.5 \times 10^{33} is wrong and 2e9 passes for 3e6... as long as both are written with e. 58 of
Minerva's 272 references are of that kind.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from openrs.data.shapes import is_worked
from openrs.rewards.extraction import boxed, gold_in
from openrs.rewards.grading import Item, Judge, Rule, Verdict
from openrs.rewards.normalize import characters, commands, normalized, tokens
from openrs.rewards.numerals import recurring, scientific, thousands
from openrs.rewards.reading import read
from openrs.rewards.values import Grid, Items, Ratio, Region, Relation

WRONG = "987654321"  # no reference answer is that; a whole number is compared fastest
_TINY = re.compile(r"[eE^]\s*\{?\s*-|0?\.0{5}|\d{7}")  # perhaps within half a millionth of 0
_DIGITS = re.compile(r"\d[\d,]*(?:\.\d+)?")
KINDS = ("e-notation", "time", "base", "percent", "multi-part", "thousands marks", "recurring", "other characters")
SAFE = ("e-notation", "thousands marks", "recurring", "other characters")  # those that `safe_form` rewrites
LONGEST = 4000


class ReferenceFault(StrEnum):
    UNREADABLE = "cannot be read"
    PAYS_WRONG = "a wrong answer passes for it"
    PAYS_ZERO = "0.0 passes for it"
    NOT_ITSELF = "an answer that repeats it is wrong"


@dataclass(frozen=True, slots=True)
class CheckedReferences:
    """What the judge made of reference answers, by their index. read: what it takes for the answer.

    without_box, other_number: worked solutions without a box, and those whose last number is not the one that was read.
    """

    faults: dict[int, ReferenceFault] = field(default_factory=dict)
    read: dict[int, str] = field(default_factory=dict)
    without_box: list[int] = field(default_factory=list)
    other_number: list[int] = field(default_factory=list)


def check_references(
    references: Sequence[str], rules: Sequence[Rule], judge: Judge, *, published: bool = False
) -> CheckedReferences:
    """Ask the judge about each reference answer by each rule: twice, with a wrong answer and with its own.

    published: whether these are the paper's own, whose tiny numbers are not looked at: its rules round to six decimals,
    and 0.0 passes for 1e-7.
    Never raises for what is in a reference answer. Milliseconds for each different one and rule.
    """
    different = list(dict.fromkeys(references))
    faults: dict[str, ReferenceFault] = {}
    read: dict[str, str] = {}
    for rule in rules:
        grades = judge.grade([Item(text, rf"\boxed{{{WRONG}}}", rule) for text in different])
        own: list[Item] = []
        for text, grade in zip(different, grades, strict=True):
            if grade.verdict in (Verdict.UNPARSEABLE_GOLD, Verdict.TIMEOUT, Verdict.CRASH):
                faults.setdefault(text, ReferenceFault.UNREADABLE)
            elif grade.verdict is Verdict.CORRECT:
                faults.setdefault(text, ReferenceFault.PAYS_WRONG)
            else:
                read.setdefault(text, grade.gold)
                extracted = boxed(text) or grade.gold.partition(" -> ")[0].partition(" (not read")[0]
                own.append(
                    Item(text, rf"\boxed{{{extracted if is_worked(text) or boxed(text) else _bare(text)}}}", rule)
                )
        for item, grade in zip(own, judge.grade(own), strict=True):
            if grade.verdict is not Verdict.CORRECT:
                faults.setdefault(item.gold, ReferenceFault.NOT_ITSELF)
    for rule in {*rules} & {Rule.PAPER, Rule.PAPER_COSINE} if not published else ():
        tiny = [text for text in read if _TINY.search(text) and text not in faults]
        faults |= dict.fromkeys(_passed_by_zero(tiny, rule, judge), ReferenceFault.PAYS_ZERO)
    checked = CheckedReferences(
        {index: faults[text] for index, text in enumerate(references) if text in faults},
        {index: read[text] for index, text in enumerate(references) if text in read},
    )
    for index, answer in checked.read.items():
        text = references[index]
        if not is_worked(text):
            continue
        if r"\boxed" not in text and r"\fbox" not in text:
            checked.without_box.append(index)
        if (numbers := _numbers(text)) and numbers[-1] not in _numbers(answer):
            checked.other_number.append(index)
    return checked


def _passed_by_zero(texts: Sequence[str], rule: Rule, judge: Judge) -> list[str]:
    """Those for which a rule of the paper takes 0.0, and the corrected one does not."""
    paper, corrected = (
        judge.grade([Item(text, r"\boxed{0.0}", asked) for text in texts]) for asked in (rule, Rule.CORRECTED)
    )
    return [
        text
        for text, by_paper, exact in zip(texts, paper, corrected, strict=True)
        if by_paper.verdict is Verdict.CORRECT and exact.verdict is not Verdict.CORRECT
    ]


def _bare(text: str) -> str:
    r"""An answer without the dollars around it, for a box."""
    bare = text.strip()
    for start, end in (("$$", "$$"), ("$", "$"), (r"\[", r"\]"), (r"\(", r"\)")):
        if len(bare) > len(start + end) and bare.startswith(start) and bare.endswith(end):
            return bare[len(start) : -len(end)]
    return bare


def _numbers(text: str) -> list[str]:
    return [number.replace(",", "").rstrip(".") for number in _DIGITS.findall(text.replace("{,}", ","))]


# --- kinds that judges misread ----------------------------------------------------------------------------------------


def reference_kinds(reference: str) -> list[str]:
    """Which of KINDS a reference answer is of, as training or an evaluation gives it. Never raises; linear."""
    text = gold_in(reference)
    if not text or len(text) > LONGEST:
        return []
    plain = normalized(text)
    found = {
        "e-notation": scientific(plain) != plain,
        "thousands marks": thousands(plain, commas=False) != plain,  # 100,200 may be two numbers
        "recurring": recurring(plain) != plain,
        "other characters": characters(text) != text,
        "percent": r"\%" in plain,
    }
    value = read(thousands(plain))
    several = value.sides[-1] if isinstance(value, Relation) else value
    found["multi-part"] = isinstance(several, Items | Region | Grid | Ratio)
    value = read(scientific(thousands(recurring(plain))))
    found["time"] = getattr(value, "time", None) is not None
    found["base"] = bool(getattr(value, "base", 0))
    return [kind for kind in KINDS if found[kind]]


def safe_form(answer: str, kinds: tuple[str, ...] = SAFE) -> str:
    r"""The answer with these kinds written as every judge reads them: `1.6e-19` as `1.6\times 10^{-19}`, `11,\! 111` as
    11111, `0.\overline{6}` as a fraction, full-width characters as ASCII. Unchanged where it is of none of them."""
    present = set(reference_kinds(answer)) & set(kinds)
    if not present or len(answer) > LONGEST:
        return answer
    text = characters(answer) if "other characters" in present else answer
    if "thousands marks" in present:
        text = thousands(commands(text), commas=False)
    if "recurring" in present:
        text = recurring(normalized(text))
    if "e-notation" in present:
        text = "".join(r"\times" if part == r"\cdot" else part for part in tokens(scientific(text)))
    return text.strip()
