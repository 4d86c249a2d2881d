"""From a problem to the exact token ids that the model reads.

The text is rendered by the tokenizer's chat template, which writes BOS itself, and tokenised without special tokens:
one BOS. The authors' generation had two (paper.md, section 1); `prompt.double_bos` puts the second one back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openrs.data import template_worker
from openrs.data.chat_template import PROBE, Render, check_chat_template, messages_of, rendered
from openrs.errors import UserError

if TYPE_CHECKING:
    from openrs.config.schema import Prompt
    from openrs.data.problem import Problem


@dataclass(frozen=True, slots=True)
class TokenizedProblems:
    """Problems with their prompts. `prompts[i]` belongs to `problems[i]`; `ids[i]` are its tokens."""

    problems: list["Problem"]
    prompts: list[str]
    ids: list[list[int]]
    too_long: list[str]
    """Ids of the problems whose prompt had more than `prompt.max_tokens` tokens."""


def render(tokenizer: Any, prompt: "Prompt", problem: str) -> str:
    """The prompt as text, special tokens included: BOS, system message, user turn, and the opening of the answer."""
    return rendered(_template_of(tokenizer, prompt), messages_of(prompt, problem), _name_of(prompt))


def check_prompt(tokenizer: Any, prompt: "Prompt") -> str:
    """One rendered prompt, shown to hold what it must (chat_template.py). Raises UserError with the prompt in it.

    The recipe's own template is first rendered under limits, as `load_tokenizer` does with the model's.
    """
    if prompt.chat_template is not None:
        special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if name.endswith("_token")}
        try:
            template_worker.render(prompt.chat_template, messages_of(prompt, PROBE), special, _name_of(prompt))
        except template_worker.TemplateLimitError:
            raise
        except UserError:
            pass  # explained below
    return check_chat_template(_template_of(tokenizer, prompt), prompt, tokenizer.bos_token, _name_of(prompt))


def _name_of(prompt: "Prompt") -> str:
    return "the model's chat template" if prompt.chat_template is None else "prompt.chat_template"


def _template_of(tokenizer: Any, prompt: "Prompt") -> Render:
    if prompt.chat_template is None and not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "the model's tokenizer has no chat template",
            "without one it is unknown how this model expects a question",
            "set prompt.chat_template in the recipe, or add chat_template.jinja to the model folder",
        )
    return lambda messages, generation: tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=generation, chat_template=prompt.chat_template
    )


def tokenize(tokenizer: Any, prompt: "Prompt", texts: Sequence[str]) -> list[list[int]]:
    """Token ids of rendered prompts, with one BOS (or two with `double_bos`)."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [[tokenizer.bos_token_id, *row] for row in ids] if prompt.double_bos else ids


def tokenize_problems(tokenizer: Any, prompt: "Prompt", problems: Sequence["Problem"]) -> TokenizedProblems:
    """Render and tokenise all problems, and treat the long ones as the recipe says.

    Raises UserError when a prompt is too long and the recipe says `refuse`, when none is left, and for a template that
    does not say the system messages of the data.
    """
    own = next((problem.system for problem in problems if problem.system is not None), None)
    if own is not None:
        try:
            check_prompt(tokenizer, prompt.model_copy(update={"system": own}))
        except UserError as error:
            fix = "set data.keep_system: false, or give a template with a system message in prompt.chat_template"
            raise UserError(f"data.keep_system: {error.what}", error.why, fix) from None
    texts = [
        render(
            tokenizer,
            prompt if problem.system is None else prompt.model_copy(update={"system": problem.system}),
            problem.problem,
        )
        for problem in problems
    ]
    ids = tokenize(tokenizer, prompt, texts)
    long = [i for i, row in enumerate(ids) if len(row) > prompt.max_tokens]
    named = [problems[i].id for i in long]
    if long and prompt.too_long == "refuse":
        raise UserError(
            f"{len(long)} prompts exceed prompt.max_tokens = {prompt.max_tokens} (problems {', '.join(named[:5])})",
            fix="raise prompt.max_tokens, or set prompt.too_long to drop or truncate_left",
        )
    keep = [i for i, row in enumerate(ids) if prompt.too_long != "drop" or len(row) <= prompt.max_tokens]
    if not keep:
        raise UserError(
            f"every prompt is longer than prompt.max_tokens = {prompt.max_tokens}", fix="raise prompt.max_tokens"
        )
    return TokenizedProblems(
        [problems[i] for i in keep], [texts[i] for i in keep], [ids[i][-prompt.max_tokens :] for i in keep], named
    )
