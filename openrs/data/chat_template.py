"""A chat template, checked by one rendered prompt before anything is trained or asked.

A template is a program that comes with a model or a recipe: it may fail, leave out what it is given, write BOS twice,
or end before the model's turn. Each of these trains or scores a model on prompts that nobody meant, without a word.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from openrs.errors import UserError
from openrs.run.terminal import clean

if TYPE_CHECKING:
    from openrs.config.schema import Prompt

Messages = Sequence[Mapping[str, str]]
Render = Callable[[Messages, bool], str]
"""Messages and whether to add the generation prompt -> text. Raises anything: templates are programs."""

PROBE, ANSWER = "What is 27+58? (a question that openrs asks of every template)", "85, says the assistant"
WITHOUT_SYSTEM = "set prompt.system: null and put its text into prompt.user, or give a template in prompt.chat_template"
SYSTEM_LEFT_OUT = "leaves the system message (prompt.system) out"
SHOWN = 1000  # characters of a rendered prompt in a message


def messages_of(prompt: "Prompt", problem: str) -> list[dict[str, str]]:
    system = [{"role": "system", "content": prompt.system}] if prompt.system is not None else []
    return [*system, {"role": "user", "content": prompt.user.replace("{problem}", problem)}]


def rendered(render: Render, messages: Messages, where: str) -> str:
    """What the template at `where` makes of the messages. Raises UserError when it fails, whatever it raises."""
    try:
        return str(render(messages, True))
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - fault boundary: a template is a program that comes from anywhere
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        line = getattr(error, "lineno", None)
        system = any(message["role"] == "system" for message in messages)
        if system and _renders(render, [message for message in messages if message["role"] != "system"]):
            raise UserError(
                f"{where} takes no system message: {reason}",
                "prompt.system cannot be said to this model as it stands",
                WITHOUT_SYSTEM,
            ) from None
        raise UserError(
            f"{where} cannot be rendered: {reason}{f' (its line {line})' if line else ''}",
            "it fails for a plain conversation, so no prompt can be made",
            "take the model's own chat_template.jinja, or give a template that works in prompt.chat_template",
        ) from None


def check_chat_template(render: Render, prompt: "Prompt", bos: str | None, where: str) -> str:
    """The first prompt as text, once it is shown to hold the system message and the problem, one BOS at most, and the
    opening of the model's turn.

    render: the template, called a few times. bos: the tokenizer's BOS as text, where it has one. where: what to call
    the template. Raises UserError, with the rendered prompt in it.
    """
    messages = messages_of(prompt, PROBE)
    text = rendered(render, messages, where)
    shown = clean(text[:SHOWN]).replace("\n", "\n    | ") + (" ..." if len(text) > SHOWN else "")
    fault = _fault(render, prompt, messages, text, bos)
    if fault:
        raise UserError(
            f"{where} {fault}. The first prompt:\n    | {shown}",
            "the model would be trained or scored on prompts that nobody meant",
            WITHOUT_SYSTEM
            if fault == SYSTEM_LEFT_OUT
            else "take the model's own chat_template.jinja, or give a template in prompt.chat_template (recipe)",
        )
    if prompt.double_bos and not bos:
        raise UserError(
            "prompt.double_bos: true, and the tokenizer has no BOS token", fix="set prompt.double_bos: false"
        )
    return text


def _fault(render: Render, prompt: "Prompt", messages: Messages, text: str, bos: str | None) -> str:
    if PROBE not in text:
        return "leaves the problem out, so all prompts are equal"
    if prompt.system is not None and prompt.system.strip() not in text:
        return SYSTEM_LEFT_OUT
    if bos and text.startswith(bos) and text.removeprefix(bos).lstrip().startswith(bos):
        return f"writes BOS ({bos}) twice in front"
    if not _opens_the_answer(render, messages, text):
        return (
            "adds no generation prompt: what it writes before an answer of the assistant is missing at the prompt's end"
        )
    return ""


def _opens_the_answer(render: Render, messages: Messages, text: str) -> bool:
    """Whether a model that goes on after `text` is in its own turn. Some formats need no opening: there the assistant's
    text follows the prompt at once."""
    try:
        if render(messages, False) != text:
            return True
        whole = render([*messages, {"role": "assistant", "content": ANSWER}], False)
    except Exception:  # noqa: BLE001 - a template may refuse other conversations than a prompt
        return True
    between = whole.removeprefix(text).partition(ANSWER)
    return not (whole.startswith(text) and between[1] and between[0].strip())


def _renders(render: Render, messages: Messages) -> bool:
    try:
        render(messages, True)
    except Exception:  # noqa: BLE001 - only whether it works is asked
        return False
    return True
