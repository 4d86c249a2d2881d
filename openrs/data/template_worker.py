"""Chat templates: compiled in a sandbox, and rendered once in a process of its own before anything relies on them.

A template is a program, and comes with a model from anywhere. The sandbox keeps it from files and from Python; it does
not keep it from looping or allocating without end. So `render` starts this module as a program that the kernel ends
after SECONDS of processor time and that gets no more than MEMORY; what renders there is rendered here afterwards.
"""

import contextlib
import functools
import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from openrs.errors import UserError

SECONDS = 2  # of the processor; a prompt takes milliseconds
MEMORY = 2**30  # bytes, on top of the interpreter
LONGEST = 2**22  # characters of a rendered prompt: no model's window holds as many
PATIENCE = 300.0  # seconds by the clock, on a machine that has no time for it
FIX = "use the chat template of the model's home"
ALWAYS = {"tools": None, "documents": None}  # transformers gives every template these; `tools is not none` asks for it


class TemplateLimitError(UserError):
    """A template that must not be rendered in this process."""


def render(template: str, messages: Sequence[Mapping[str, str]], special: Mapping[str, str], where: str) -> str:
    """The chat text of a conversation, ready for the assistant's turn, rendered under limits.

    special: bos_token, eos_token ... as text. where: whose template it is, for messages. It is rendered without the
    opening of the assistant's turn as well, in which it may fail. Raises UserError when the template is broken, refuses
    the messages, takes too long, or needs or writes too much.
    """
    job = {"template": template, "messages": list(messages), "special": dict(special)}
    return _render(json.dumps(job), where)


@functools.lru_cache(maxsize=32)
def _render(job: str, where: str) -> str:
    command = [sys.executable, "-m", __spec__.name if __spec__ else "openrs.data.template_worker"]
    try:
        done = subprocess.run(command, input=job.encode(), capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise TemplateLimitError(f"{where}: its chat template was not rendered in {PATIENCE:.0f} s", fix=FIX) from None
    if done.returncode:
        what = f"more than {SECONDS} s of processor time, or all of its stack"
        why = "it loops or nests without end"
        raise TemplateLimitError(f"{where}: its chat template takes {what} for one prompt", why, FIX)
    answer = json.loads(done.stdout)
    if "beyond" in answer:
        raise TemplateLimitError(f"{where}: its chat template {answer['beyond']}", fix=FIX)
    if "fault" in answer:
        raise UserError(f"{where}: its chat template {answer['fault']}", fix=FIX)
    return str(answer["text"])


def compiled(text: str) -> Any:
    """Compile as transformers does (utils/chat_template_utils.py): a sandbox, because templates come from anywhere.

    Raises jinja2.TemplateError for a broken one; rendering raises it for messages that the template refuses.
    """
    from jinja2 import TemplateError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %} marks what the assistant wrote, for training; what is in it is rendered as it stands."""

        tags = {"generation"}  # noqa: RUF012 - jinja's own interface

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: object) -> NoReturn:
        raise TemplateError(f"refuses a single user message: {str(message)[:500]}")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    return environment.from_string(text)


def _answer(job: Mapping[str, Any]) -> dict[str, str]:
    from jinja2 import TemplateError

    try:
        template = compiled(job["template"])
    except TemplateError as error:
        return {"fault": f"is broken: {error}"[:1000]}
    except (RecursionError, MemoryError, SyntaxError) as error:  # of Python's compiler
        return {"beyond": f"is nested too deeply ({type(error).__name__})"}
    values = {"messages": job["messages"], **ALWAYS, **job["special"]}
    try:
        text = str(template.render(add_generation_prompt=True, **values))
    except MemoryError:
        return {"beyond": f"needs more than {MEMORY // 2**30} GiB for one prompt"}
    except Exception as error:  # noqa: BLE001 - fault boundary: a stranger's program
        return {"fault": str(error)[:1000] if "refuses a" in str(error) else f"cannot be rendered: {error}"[:1000]}
    if len(text) > LONGEST:
        return {"beyond": f"makes {len(text):,} characters of one message"}
    with contextlib.suppress(Exception):  # what matters is that it ends
        template.render(add_generation_prompt=False, **values)
    return {"text": text}


def _main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.write(json.dumps(_answer(job)))


if __name__ == "__main__":
    _main()
