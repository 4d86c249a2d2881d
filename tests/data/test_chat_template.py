"""Chat templates: each kind that spoils prompts is refused with the rendered prompt, each kind that works is not."""

import json
import re
from pathlib import Path

import pytest

from openrs.config.load import load
from openrs.config.schema import Prompt
from openrs.data.problem import Problem
from openrs.data.prompts import check_prompt, render, tokenize_problems
from openrs.data.tokenizer import ChatEncoder, load_tokenizer
from openrs.errors import UserError
from openrs.training.demo_model import BOS, make_tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content | trim + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
GENERATION = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
BAD = {
    "a syntax error": ("{% for m in messages %}{{ m.content }", "cannot be rendered", {}),
    "forbids a system role": (
        NO_SYSTEM + CHATML,
        "takes no system message: System role not supported",
        {"system": "s"},
    ),
    "leaves the system out": (LLAMA2, "leaves the system message", {"system": "Think."}),
    "ignores its messages": ("{{ bos_token }}Hello" + GENERATION, "leaves the problem out", {}),
    "only the system": ("{{ messages[0].content }}" + GENERATION, "leaves the problem out", {"system": "s"}),
    "two BOS": ("{{ bos_token }}{{ bos_token }}" + CHATML, "twice in front", {}),
    "two BOS, apart": ("{{ bos_token }}\n{{ bos_token }}" + CHATML, "twice in front", {}),
    "no generation prompt": (CHATML.removesuffix(GENERATION), "adds no generation prompt", {}),
    "divides by zero": ("{{ 1 / 0 }}" + CHATML, "cannot be rendered: division by zero", {}),
    "asks for what is not there": ("{{ tools[0].name }}" + CHATML, "cannot be rendered", {}),
    "calls a text": ("{{ messages[0].content() }}" + CHATML, "cannot be rendered", {}),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_template_that_spoils_prompts_is_refused_with_its_prompt(kind: str) -> None:
    template, said, settings = BAD[kind]
    tokenizer = make_tokenizer()
    for prompt in (Prompt(**settings, chat_template=template), Prompt(**settings)):
        tokenizer.chat_template = template
        with pytest.raises(UserError, match=re.escape(said)) as refused:
            check_prompt(tokenizer, prompt)
        name = "prompt.chat_template" if prompt.chat_template else "the model's chat template"
        assert refused.value.what.startswith(name)
        assert ("prompt.system: null" in refused.value.fix) == ("system" in kind and "only" not in kind)
        if "The first prompt:" in refused.value.what:
            shown = refused.value.what.partition("The first prompt:")[2].replace("\n    | ", "\n").strip()
            assert (
                shown
                == render(tokenizer, prompt, "What is 27+58? (a question that openrs asks of every template)").strip()
            )
        else:
            assert "cannot be rendered" in said or "takes no system" in said


@pytest.mark.parametrize("template", [CHATML, "{{ bos_token }}" + CHATML, LLAMA2, NO_SYSTEM + LLAMA2])
def test_formats_that_work_pass(template: str) -> None:
    text = check_prompt(make_tokenizer(), Prompt(chat_template=template))
    assert text.count(BOS) == (1 if "bos_token" in template else 0)


@pytest.mark.slow
def test_the_papers_and_the_demos_templates_pass(shared_data: Path) -> None:
    check_prompt(make_tokenizer(), load("demo").prompt)
    tokenizer = load_tokenizer(shared_data / "tokenizer")
    for name in ("exp1", "exp2", "exp3"):
        assert check_prompt(tokenizer, load(name).prompt).endswith("<think>\n")


def test_a_recipes_own_template_is_rendered_under_limits_first() -> None:
    with pytest.raises(UserError, match=r"prompt\.chat_template.* needs more than 1 GiB"):
        check_prompt(make_tokenizer(), Prompt(chat_template="{{ 'x' * 3000000000 }}" + CHATML))


@pytest.mark.parametrize("template", [LLAMA2, NO_SYSTEM + CHATML])
def test_system_messages_of_the_data_are_said_or_refused(template: str) -> None:
    rows = [Problem("0", "2+2", "4"), Problem("1", "2+3", "5", "Be brief.")]
    with pytest.raises(
        UserError, match=r"data\.keep_system: prompt\.chat_template (takes no|leaves the) system"
    ) as refused:
        tokenize_problems(make_tokenizer(), Prompt(chat_template=template), rows)
    assert "data.keep_system: false" in refused.value.fix
    assert "Be brief." in tokenize_problems(make_tokenizer(), Prompt(chat_template=CHATML), rows).prompts[1]


def test_a_second_bos_needs_a_bos() -> None:
    tokenizer = make_tokenizer()
    tokenizer.bos_token = None
    with pytest.raises(UserError, match="no BOS token"):
        check_prompt(tokenizer, Prompt(chat_template=CHATML, double_bos=True))


@pytest.mark.parametrize("kind", [kind for kind, (_, _, settings) in BAD.items() if not settings])
def test_an_evaluation_makes_the_same_check(kind: str, tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "chat_template.jinja").write_text(BAD[kind][0])
    with pytest.raises(UserError, match="chat template"):
        ChatEncoder.from_folder(tmp_path).check_template(Prompt())


def test_an_evaluation_gives_a_template_what_transformers_gives_it(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% if tools is not none or documents is not none %}Tools{% endif %}" + CHATML
    tokenizer.save_pretrained(tmp_path)
    message = [{"role": "user", "content": "2+2"}]
    trained = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert trained.startswith("<|im_start|>user")
    assert ChatEncoder.from_folder(tmp_path).text("2+2") == trained
