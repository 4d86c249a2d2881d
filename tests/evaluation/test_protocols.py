"""The published protocols, and that `paper` feeds exactly the authors' token ids."""

import pytest

from openrs.config.load import load
from openrs.config.schema import Evaluation
from openrs.errors import UserError
from openrs.evaluation.benchmarks import digest, known
from openrs.evaluation.inputs import combined
from openrs.evaluation.plan import Target, prepare
from openrs.evaluation.protocols import PROTOCOLS, chosen, described, name_of, samples_of

FIVE = [benchmark.name for benchmark in known().values() if benchmark.hashes]


def test_paper():
    settings = chosen(Evaluation(), "paper", {})
    assert (settings.samples, settings.temperature, settings.top_p) == (1, 0.6, 0.95)
    assert (settings.max_tokens, settings.max_model_len, settings.seed, settings.double_bos) == (
        32768,
        32768,
        1234,
        True,
    )
    assert name_of(settings) == "paper"
    assert {samples_of(settings, benchmark) for benchmark in known().values()} == {1}


def test_sober():
    settings = chosen(Evaluation(), "sober", {})
    assert (settings.temperature, settings.top_p, settings.max_tokens) == (0.8, 0.9, 32768)
    asked = {name: samples_of(settings, known()[name]) for name in [*FIVE, "aime25", "gpqa_diamond"]}
    assert asked == {
        "aime24": 10, "aime25": 10, "amc23": 10, "math_500": 3, "minerva": 3, "olympiadbench": 3, "gpqa_diamond": 3
    }  # fmt: skip
    assert name_of(settings) == "sober"


@pytest.mark.parametrize(
    ("protocol", "options", "name"),
    [
        (None, {}, "custom"),  # one BOS
        ("paper", {"samples": 4}, "custom"),
        ("paper", {"max_tokens": 100}, "custom"),
        ("paper", {"seed": 7}, "custom"),
        ("sober", {"samples": 16}, "sober"),  # 10 or more, and 3 or more
        ("sober", {"samples": 9}, "custom"),
        ("sober", {"temperature": 0.7}, "custom"),
        ("sober", {"seed": 7}, "sober"),  # ten seeds there are ten samples here
    ],
)
def test_a_protocol_is_named_by_what_it_is(protocol, options, name):
    settings = chosen(Evaluation(), protocol, options)
    assert name_of(settings) == name
    assert all(getattr(settings, key) == value for key, value in options.items())
    if "samples" in options:
        assert {samples_of(settings, benchmark) for benchmark in known().values()} == {options["samples"]}


def test_the_recipes_of_the_paper_are_evaluated_by_the_papers_protocol():
    for name in ("exp1", "exp2", "exp3"):
        recipe = load(name)
        assert name_of(recipe.evaluation) == "paper"
        assert recipe.evaluation.checkpoints == "all"


def test_options_that_cannot_be_are_named():
    for option, said in (("samples", 0), ("top_p", 0.0), ("temperature", -1), ("max_tokens", 0)):
        with pytest.raises(UserError, match=f"--{option.replace('_', '-')}"):
            chosen(Evaluation(), None, {option: said})


@pytest.fixture(scope="module")
def paper(papers_tokenizer, shared_data):
    settings = Evaluation.model_validate(
        {"benchmarks": FIVE, "data": str(shared_data / "benchmarks"), "processes": 1, **PROTOCOLS["paper"]}
    )
    return prepare(Target("base", str(papers_tokenizer)), settings)


@pytest.mark.slow
def test_paper_feeds_exactly_the_authors_token_ids(paper):
    assert paper.record["protocol"]["name"] == "paper"
    assert paper.record["protocol"]["bos"] == 2
    assert paper.inputs.proven
    for name in FIVE:
        fed = combined(digest(str([list(r.ids)])) for r in paper.requests if r.benchmark == name)
        assert fed == known()[name].hashes.hash_input_tokens
    assert "two BOS in front, as the authors' harness fed them" in described(paper.settings, "vllm", 2)


@pytest.mark.slow
def test_prompt_and_completion_share_the_papers_window(paper):
    assert len(paper.requests) == 30 + 40 + 500 + 272 + 675
    assert {len(request.ids) + request.max_new_tokens for request in paper.requests} == {32768}
    assert paper.engine().max_model_len == 32768


@pytest.mark.slow
def test_other_protocols_feed_one_bos_and_say_so(papers_tokenizer, shared_data, paper):
    settings = Evaluation(benchmarks=["aime24"], data=str(shared_data / "benchmarks"), max_tokens=100, processes=1)
    plan = prepare(Target("base", str(papers_tokenizer)), settings)
    two = {request.problem: request.ids for request in paper.requests}
    assert all((151646, *request.ids) == two[request.problem] for request in plan.requests)
    assert {request.max_new_tokens for request in plan.requests} == {100}
    assert plan.record["protocol"]["bos"] == 1
    assert plan.record["protocol"]["name"] == "custom"
    assert "one BOS in front" in described(settings, "vllm", 1)
    assert plan.inputs.proven  # the questions are the paper's all the same


def test_token_ids_are_those_of_transformers(papers_tokenizer, made_model):
    """The ids come from the files without transformers; transformers gives the same, chat template and all."""
    from openrs.config.schema import Prompt
    from openrs.data import prompts
    from openrs.data.tokenizer import load_tokenizer

    for folder in (papers_tokenizer, made_model):
        settings = Evaluation(benchmarks=["demo"], max_tokens=8, processes=1, engine="transformers")
        plan = prepare(Target("x", str(folder)), settings)
        tokenizer = load_tokenizer(folder)
        texts = [prompts.render(tokenizer, Prompt(), problem.prompt) for problem in plan.problems["demo"]]
        assert [list(r.ids) for r in plan.requests] == prompts.tokenize(tokenizer, Prompt(), texts)
