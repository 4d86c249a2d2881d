"""What is the same text, and what is not."""

import pytest

from openrs.curation.text import numbers, signature, tokens


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"Find $\dfrac{1}{2}$.", r"find \(\frac12\)"),
        (r"$x \leq 5$", "$x≤5$"),
        (r"Let $abc = 1$", r"let $a b c=1$"),
        (r"$10{,}000$ ants", "10,000 ants"),
        (r"$x^2$", "$x²$"),
        ("three  dogs", "3 dogs"),
        (r"angle of $60^\circ$", r"angle of $60^{\circ}$"),
        (r"\[a+b\tag{1}\]", "$$a + b$$"),
        (r"$\left(\mathbf{A}B\right)$", "$(AB)$"),
        (r"$a\text{ and }b$", "$a$ and $b$"),
        ("the $n\\times n$ board", "the $n \\cdot n$ board"),
    ],
)
def test_typed_otherwise(one, other):
    assert tokens(one) == tokens(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Find the largest $n$ below 10", "Find the smallest $n$ below 10"),
        ("What is $2+3$?", "What is $2-3$?"),
        ("What is $2+3$?", "What is $2+4$?"),
        ("Find $x$ when $x=2$", "Find $y$ when $y=2$"),
        ("$2^{10}$ bits", "$210$ bits"),
        ("two red balls", "3 red balls"),
        ("Area [asy]draw((0,0)--(1,1));[/asy]?", "Area [asy]draw((0,0)--(1,2));[/asy]?"),
    ],
)
def test_another_question(one, other):
    assert tokens(one) != tokens(other)
    assert signature(tokens(one)) != signature(tokens(other))


def test_code_that_draws_is_one_token_whatever_its_spaces():
    assert tokens("a [asy]draw( (0,0) );[/asy] b") == tokens("a [asy]draw((0,0));\n[/asy] b")
    assert len(tokens("a [asy]" + "draw((0,0));" * 50 + "[/asy] b")) == 3


def test_numbers():
    assert numbers(tokens("Twelve men, 3.5 km and $1,000$ steps")) == ["12", "3.5", "1000"]


@pytest.mark.parametrize(
    "text", ["", "   ", "$", "\\", "[asy]", "\x00\x01", "$$$$$$", "\\[" * 500, "é" * 10_000, "((((" * 5000]
)
def test_hostile_texts_end(text):
    assert isinstance(tokens(text), list)
