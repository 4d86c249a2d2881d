"""Tokenizers: loaded through transformers and checked, or used as they lie on disk without it.

transformers 5 ignores the tokenizer class of qwen2 models (MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS) and builds a
Qwen2Tokenizer; with a tokenizer of another kind, digits, spaces and `<think>` then vanish without a word. So what was
loaded is compared with what tokenizer.json itself says. The base model's tokenizer passes under transformers 5.17.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from openrs.data import template_worker
from openrs.data.chat_template import Messages, check_chat_template, rendered
from openrs.errors import UserError
from openrs.outside import MIB, read_object, read_text

if TYPE_CHECKING:
    from openrs.config.schema import Prompt

PAPER_CHAT = "<｜begin▁of▁sentence｜><｜User｜>{prompt}<｜Assistant｜><think>\n"
"""The paper's evaluation prompt in chat format, no system message (paper.md section 1, proven by hash_full_prompts)."""

TEMPLATE = "chat_template.jinja"
TEMPLATE_LIMIT = MIB  # bytes; the longest known have 20,000
PROBES = (
    "Find the remainder when $2^{2025}$ is divided by $1000$.",
    r"Let $f(x)=\frac{x^2-1}{\sqrt{x+1}}$ and $\sum_{k=1}^{\infty}\frac{1}{k^2}=\boxed{\frac{\pi^2}{6}}$.",
    "<think>\nFirst, 7+8=15.\n\nSo 27+58=85.\n</think>\n\n\\boxed{85}",
    "0123456789 1,234,567.89 3.14159 -42 10^{-6}",
    "\n\n\n  indented\n\ttab\n trailing  \n",
    "Größe, naïve, Ελληνικά, русский, 中文数学题, 日本語, العربية, 🧮∑∫√≤≠",
    "def f(x):\n    return {'a': [x, x**2]}  # comment\r\n",
    " leading space and  two  spaces ",
    "\\begin{align*}\n a &= b \\\\\n c &= d\n\\end{align*} [asy]draw((0,0)--(1,1));[/asy]",
)
"""Texts in Unicode normal form C: tokenizers that normalise to it must round-trip them too."""


def load_tokenizer(folder_or_repo: str | Path, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """A transformers tokenizer from a folder, or from the hub at a pinned revision. See `check_tokenizer`.

    Raises UserError when a folder has no tokenizer, a file in it is broken, or the hub cannot give one.
    """
    folder = Path(folder_or_repo)
    if folder.is_dir():
        _tokenizer_file(folder)
        config = _read_config(folder)
        if config.get("chat_template") or (folder / TEMPLATE).is_file():  # a base model may have none
            _safe_template(folder, config)
    elif folder.is_absolute() or str(folder_or_repo).startswith(".") or str(folder_or_repo).count("/") > 1:
        raise UserError(
            f"there is no folder {folder_or_repo}", fix="give a model folder, or a hub name like owner/model"
        )
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(folder_or_repo), revision=revision, trust_remote_code=trust_remote_code, use_fast=True
        )
    except Exception as error:  # noqa: BLE001 - fault boundary: the hub, and files from anywhere
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the tokenizer of {folder_or_repo}{f' at {revision}' if revision else ''} cannot be loaded: {reason}",
            fix="check the name, the revision and the network, or give a folder with tokenizer.json",
        ) from None


def check_tokenizer(tokenizer: Any, folder: Path) -> int:
    """Stop when the loaded tokenizer does not do what `folder`/tokenizer.json says.

    Checked on PROBES: equal ids with and without special tokens, and decode(encode(text)) == text. Returns how many
    BOS tokens encoding puts in front of a plain text (0 or 1). Raises UserError naming the first text and ids that
    differ.
    """
    truth = _read_tokenizer(folder)
    for text in PROBES:
        for special in (False, True):
            ids = list(tokenizer(text, add_special_tokens=special)["input_ids"])
            wanted = list(truth.encode(text, add_special_tokens=special).ids)
            if ids != wanted:
                raise _other_ids(f"{folder}: the loaded tokenizer ({type(tokenizer).__name__})", text, ids, wanted)
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        back = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if back != text:
            raise UserError(
                f"{folder}: {text[:40]!r} comes back from the tokenizer as {str(back)[:40]!r}",
                "what cannot be written in its tokens cannot be asked or answered",
                "use a byte-level tokenizer",
            )
    return _leading(tokenizer("x", add_special_tokens=True)["input_ids"], tokenizer.bos_token_id)


class Encoded(NamedTuple):
    """A user message in chat format. ids: with one BOS (where the tokenizer has one). double: see ChatEncoder.ids."""

    text: str
    ids: list[int]
    double: list[int]


@dataclass(frozen=True, slots=True)
class ChatEncoder:
    """User message -> chat text -> token ids, from the files alone: no torch, no transformers, at once."""

    tokenizer: Any
    template: Any
    special: dict[str, str]

    @classmethod
    def from_folder(cls, path: Path) -> "ChatEncoder":
        """From a model's folder, or its tokenizer.json. Raises UserError when a part is missing or broken."""
        folder = path.parent if path.is_file() else path
        tokenizer = _read_tokenizer(folder)
        template, special = _safe_template(folder, _read_config(folder))
        return cls(tokenizer, template_worker.compiled(template), special)

    def text(self, prompt: str) -> str:
        """The chat text for one user message, ready for the assistant's turn. Raises UserError if the template
        fails."""
        return rendered(self.render, [{"role": "user", "content": prompt}], "the model's chat template")

    def render(self, messages: Messages, generation: bool) -> str:
        """Any conversation as the template writes it, with the opening of the assistant's turn or without."""
        values = {**template_worker.ALWAYS, **self.special}
        return str(self.template.render(messages=messages, add_generation_prompt=generation, **values))

    def check_template(self, prompt: "Prompt") -> None:
        """Raises UserError when the template cannot say such a prompt (chat_template.py)."""
        check_chat_template(self.render, prompt, self.special.get("bos_token"), "the model's chat template")

    def ids(self, prompt: str, *, double_bos: bool = False) -> list[int]:
        """Token ids of the chat text, with one BOS (where the tokenizer has one).

        double_bos tokenises the chat text with special tokens once more, as the authors' harness did: where the
        template writes BOS and the tokenizer adds it, there are two (proven by hash_input_tokens).
        """
        encoded = self.encoded(prompt)
        return encoded.double if double_bos else encoded.ids

    def encoded(self, prompt: str) -> Encoded:
        """Chat text and both forms of its token ids, from one pass of the tokenizer."""
        text, bos = self.text(prompt), self.special.get("bos_token", "")
        encoding = self.tokenizer.encode(text, add_special_tokens=True)
        double = list(encoding.ids)
        if not (bos and text.startswith(bos)):
            return Encoded(text, double, double)
        added = encoding.special_tokens_mask  # 1 for what the tokenizer put around the text, 0 for what stood in it
        return Encoded(text, [token for token, mark in zip(double, added, strict=True) if not mark], double)

    def leading_bos(self, ids: list[int]) -> int:
        """How many BOS tokens stand in front."""
        return _leading(ids, self.token_id("bos_token"))

    def token_id(self, name: str) -> int | None:
        """Of eos_token, pad_token ... as tokenizer_config.json names it; None when it names none."""
        found = self.tokenizer.token_to_id(self.special.get(name, ""))
        return None if found is None else int(found)

    def decode(self, ids: list[int]) -> str:
        """The text, without special tokens, as transformers decodes it without cleaning it up."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


def _leading(ids: list[int], token: int | None) -> int:
    return next((n for n, here in enumerate(ids) if here != token), len(ids)) if token is not None else 0


def _other_ids(loaded: str, text: str, ids: list[int], wanted: list[int]) -> UserError:
    same = min(len(ids), len(wanted))
    place = next((n for n in range(same) if ids[n] != wanted[n]), same)
    around = slice(max(0, place - 1), place + 4)
    return UserError(
        f"{loaded} is not the one in tokenizer.json: for {text[:40]!r} it gives {ids[around]} where the file gives "
        f"{wanted[around]} (from token {around.start})",
        "transformers builds its own tokenizer class for some model types, and the model would read nonsense",
        "save the model with the tokenizer class that transformers loads it with (Qwen2Tokenizer for qwen2)",
    )


def _tokenizer_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", fix="give the folder that holds tokenizer.json")
    file = folder / "tokenizer.json"
    if not file.is_file():
        there = ", ".join(sorted(f.name for f in folder.iterdir())[:8]) or "nothing"
        raise UserError(
            f"{folder} has no tokenizer.json", f"in it: {there}", "copy the tokenizer's files beside the model's"
        )
    return file


def _read_tokenizer(folder: Path) -> Any:
    import tokenizers

    file = _tokenizer_file(folder)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
        tokenizer.no_truncation()  # saved with the file by whoever called it last, and no part of the tokenizer
        tokenizer.no_padding()
    except Exception as error:  # noqa: BLE001 - fault boundary: the library raises bare Exception for a broken file
        raise UserError(f"{file} is not a tokenizer: {error}", fix="copy it again from the model's home") from None
    return tokenizer


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    return read_object(file, "fetch or copy the model anew") if os.path.lexists(file) else {}


def _special(config: dict[str, Any]) -> dict[str, str]:
    """The texts of bos_token, eos_token ... as a template gets them."""
    tokens = {name: value for name, value in config.items() if name.endswith("_token")}
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in tokens.items()}
    return {name: str(text or "") for name, text in texts.items()}


def _safe_template(folder: Path, config: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """A chat template that was rendered under limits, and the special tokens that it gets."""
    template, special = _template_text(folder, config), _special(config)
    template_worker.render(template, [{"role": "user", "content": PROBES[0]}], special, str(folder))
    return template, special


def _template_text(folder: Path, config: dict[str, Any]) -> str:
    file = folder / TEMPLATE
    if file.is_file():
        return read_text(file, TEMPLATE_LIMIT)
    template = config.get("chat_template")
    if isinstance(template, list):  # named templates
        named = (item for item in template if isinstance(item, dict) and item.get("name") == "default")
        template = next((item.get("template") for item in named), None)
    if not isinstance(template, str) or not template:
        raise UserError(
            f"{folder} has no chat template",
            "without one it is unknown how the model expects a question",
            "put its chat_template.jinja beside tokenizer.json",
        )
    return template
