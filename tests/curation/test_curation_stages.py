"""Stages that look at one row: what goes, what stays, and what stays though it looks as if it should go."""

import json
import shutil
from pathlib import Path

import pytest
from curation_helpers import jsonl, problems, recipe, row

from openrs.cli.main import main
from openrs.curation.rows import Row
from openrs.curation.settings import Boxed, Form, Language, Length, Rewrite
from openrs.curation.stages import check_of, last_box


def reason(settings, problem, **more):
    out = check_of(settings)(row(problem, **more))
    return None if isinstance(out, Row) else out.reason


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"so $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"), (r"\boxed{1}, \boxed{2}", "2"), (r"\boxed{\{1\}}", r"\{1\}"),
        ("no box", None), (r"\boxed{never closed", None), (r"\fbox{3}", "3"), (r"\boxed{}", ""),
    ],
)  # fmt: skip
def test_last_box(text, box):
    assert last_box(text) == box


def test_boxed_gives_the_answer_that_is_missing():
    out = check_of(Boxed())(row("Q?", answer="", solution=r"It is $\boxed{7}$."))
    assert out.answer == "7"
    assert check_of(Boxed())(row("Q?", answer="6", solution=r"$\boxed{7}$")).answer == "6"
    assert reason(Boxed(), "Q?", solution="It is 7.") == "no box in the solution"
    assert reason(Boxed(), "Q?", solution=None) == "no box in the solution"
    assert reason(Boxed(), "Q?", solution=r"\boxed{ }") == "the box in the solution is empty"


@pytest.mark.parametrize(
    "problem",
    [
        "Let $f(x)=x^2$.\n(1) Find the value of $f(2)$;\n(2) If $f(a)=9$, find $a$.",
        "Given $a=1$.\n\n(a) Determine $b$.\n(b) Calculate $c$.",
        "A shop sells pens.<br/>$(1)$ Find the price;<br/>$(2)$ Find the profit.",
        "(i) Find the area. (ii) Find the perimeter.",
    ],
)
def test_several_parts(problem):
    assert reason(Form(), problem) == "has several parts"


@pytest.mark.parametrize(
    "problem",
    [
        "A number has these properties: (a) it is a square; (b) its digits are equal. Find it.",
        "Consider the propositions: (1) If $a$ then $b$. (2) If $b$ then $a$. The true ones are",
        "Given that $f(a) = 14$ and $f(b) = -14$, calculate $a + b$.",
        "Find $f(1) + f(2)$ when $f(x)=(x-1)(x-2)$.",
        "Let $P(1)=2$ and $P(2)=3$. How many such $P$ are there?",
    ],
)
def test_lists_that_are_one_question(problem):
    assert reason(Form(), problem) is None


@pytest.mark.parametrize(
    "problem",
    ["Prove that $a+b=b+a$.", "Find, with proof, all $n$.", "Is it so? Explain why.", "Find $x$ and show that $x>0$."],
)
def test_proofs(problem):
    assert reason(Form(), problem) == "asks for a proof"


@pytest.mark.parametrize(
    "problem",
    [
        "In the diagram, $ABCD$ is a square. Find $x$.", "Find the area ![](http://x.org/a.png)",
        "As shown, $AB=2$. Find $AC$.",
        "The graph below shows sales. Which year was best?", r"\includegraphics{a} What is it?",
    ],
)  # fmt: skip
def test_pictures_that_are_not_there(problem):
    assert reason(Form(), problem) == "needs a picture"


@pytest.mark.parametrize(
    "problem",
    [
        "In the diagram, find $x$. [asy]draw((0,0)--(1,1));[/asy]",
        "Find the area between the graphs of $y=x$ and $y=x^2$.",
        "It can be shown that there are two answers to this. Find their sum.",
        "How many points on the graph of $y=x^2$?",
        "A clock shows 3 o'clock. What angle do its hands make?",
    ],
)  # fmt: skip
def test_pictures_that_are_not_needed(problem):
    assert reason(Form(), problem) is None


def test_choices_and_switches():
    asked = "Which is prime? (A) 4 (B) 5 (C) 6"
    assert reason(Form(), asked, answer="B") is None
    assert reason(Form(choices=True), asked, answer=r"\textbf{(B)}") == "multiple choice"
    assert reason(Form(choices=True), asked, answer="5") is None
    assert reason(Form(proofs=False), "Prove that $1=1$.") is None


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ("Wie viele natürliche Zahlen kleiner als hundert haben genau drei verschiedene Teiler?", "not English"),
        ("Encuentra todos los números enteros positivos tales que su cuadrado sea menor", "not English"),
        ("求所有满足条件的正整数", "another script"),
        ("Найдите все простые числа меньше ста", "another script"),
        ("Find all $π$ and α with $\\alpha+\\beta = γ$.", None),
        (r"Compute $\frac{1}{2}+\frac{1}{3}$.", None),
        ("Letters А and Б are on cards. In how many ways can the cards of the set be put in a row of ten?", None),
    ],
)
def test_language(problem, said):
    assert reason(Language(), problem) == said


def test_length_in_characters():
    assert reason(Length(), "What?") == "too short"
    assert reason(Length(max_characters=20), "What is the sum of one and one?") == "too long"


@pytest.mark.slow
def test_tokens_are_those_of_the_training_prompt(shared_data):
    """Mean 187, median 172, 99 % under 421, longest 3,404, 205 above 512 over all 40,315 (paper.md, section 2)."""
    prompt = (shared_data.parent / "reference" / "prompts" / "train_system.txt").read_text()
    check = check_of(Length(tokenizer=str(shared_data / "tokenizer"), system=prompt, min_characters=0))
    every = problems(shared_data)[::20]
    counted = sorted(check(row(problem)).tokens for problem, _ in every)
    assert len(counted) == 2016
    assert sum(counted) / len(counted) == pytest.approx(187, abs=4)
    assert counted[len(counted) // 2] == pytest.approx(172, abs=4)


@pytest.mark.slow
def test_a_template_that_asks_for_tools_is_counted_as_training_renders_it(shared_data, tmp_path):
    folder = Path(shutil.copytree(shared_data / "tokenizer", tmp_path / "tokenizer"))
    with_tools = "{% if tools is not none %}{{ tools[0].name }}{% endif %}{{ messages[0]['content'] }}"
    (folder / "chat_template.jinja").write_text(with_tools)
    assert check_of(Length(tokenizer=str(folder)))(row("What is 27+58?")).tokens > 3


def test_rewrite_gives_safe_forms_and_removes_nothing():
    check = check_of(Rewrite())
    assert check(row("Q?", answer="1.6e-19")).answer == r"1.6\times 10^{-19}"
    assert check(row("Q?", answer=r"11,\! 111")).answer == "11111"
    assert check(row("Q?", answer="12:00")).answer == "12:00"  # it has no safe form
    boxed_one = check(row("Q?", answer="3e8", solution=r"Light: 3e8, so $\boxed{3e8}$ m/s."))
    assert (boxed_one.answer, boxed_one.solution) == (
        r"3\times 10^{8}", r"Light: 3e8, so $\boxed{3\times 10^{8}}$ m/s."
    )  # fmt: skip
    only = check_of(Rewrite(kinds=["recurring"]))
    assert only(row("Q?", answer="1.6e-19")).answer == "1.6e-19"
    assert only(row("Q?", answer=r"0.\overline{6}")).answer == r"\frac{6}{9}"


def test_every_rewriting_is_recorded(tmp_path):
    rows = [{"problem": f"How large is charge number {n}?", "answer": a} for n, a in enumerate(("3e8", "5", "１５"))]
    file = recipe(tmp_path / "r.yaml", jsonl(tmp_path / "raw.jsonl", rows), {"rewrite": {}})
    assert main(["curate", str(file), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    lines = [
        json.loads(line)
        for line in (tmp_path / "out" / "work" / "01-rewrite" / "rewritten.jsonl").read_text().splitlines()
    ]
    assert [(line["id"], line["before"], line["after"]) for line in lines] == [
        ("raw/0", "3e8", r"3\times 10^{8}"), ("raw/2", "１５", "15")
    ]  # fmt: skip
    facts = {
        stage["name"]: stage["facts"] for stage in json.loads((tmp_path / "out/manifest.json").read_text())["stages"]
    }
    assert facts["rewrite"] == {"answers rewritten": 2, "of kind e-notation": 1, "of kind other characters": 1}
