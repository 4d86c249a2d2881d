"""The demo's base model, made on the spot: a tiny Qwen2 with a byte-level tokenizer, taught on corrupted sums.

It stands in for the 1.5B model of the paper on machines without a GPU or a network. Its tokenizer has the base model's
special tokens and chat format, so the demo's prompts go the way that real ones go.
"""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openrs.config.schema import Prompt, ToyModel
from openrs.data import prompts
from openrs.data.arithmetic import demonstration
from openrs.run.confined import sync_folder
from openrs.run.files import write_json

BOS, EOS, USER, ASSISTANT = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
    "{% elif m.role == 'user' %}{{ '" + USER + "' + m.content }}"
    "{% else %}{{ '" + ASSISTANT + "' + m.content.split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + ASSISTANT + "<think>\\n' }}{% endif %}"
)
BATCH = 64


def make(settings: ToyModel, folder: Path, progress: Callable[[int, int, float], None] = lambda *_: None) -> Path:
    """Make the model and its tokenizer in `folder`, or take what is there when it was made with the same settings.

    `progress(step, steps, loss)` is called after each supervised step. The folder appears whole or not at all.
    """
    marker = folder / "toy.json"
    if marker.is_file() and json.loads(marker.read_text()) == settings.model_dump():
        return folder
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(settings.seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden,
            intermediate_size=settings.hidden * 8 // 3,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            max_position_embeddings=4096,  # real problems fit too, one token a byte
            initializer_range=0.06,  # at the usual 0.02 so small a model needs twice the steps to learn to copy a digit
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    _teach(model, tokenizer, settings, progress)
    model.generation_config = GenerationConfig(
        do_sample=True,  # lighteval's own transformers backend refuses several samples without it
        temperature=0.7,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    tmp_path = folder.with_name(folder.name + ".part")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    write_json(tmp_path / "toy.json", settings.model_dump())
    tmp_path.rename(folder)
    sync_folder(folder.parent)
    return folder


def make_tokenizer() -> Any:
    """One token a byte, and one each for BOS, EOS (also the padding), the two turns, <think>, </think> and \\boxed{."""
    from tokenizers import AddedToken, pre_tokenizers
    from transformers import Qwen2Tokenizer

    alphabet = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(
        vocab=alphabet, merges=[], bos_token=BOS, eos_token=EOS, pad_token=EOS, unk_token=None, model_max_length=4096
    )
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in (USER, ASSISTANT)])
    plain = ("<think>", "</think>", "\\boxed{")  # the judge must see them: not special, so decoding keeps them
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in plain])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _teach(model: Any, tokenizer: Any, settings: ToyModel, progress: Callable[[int, int, float], None]) -> None:
    """Supervised training on demonstrations, the loss on the completion only; AdamW, cosine decay to a tenth."""
    import torch

    def schedule_of(step: int) -> float:
        return min(1.0, (step + 1) / 20) * (0.1 + 0.45 * (1 + math.cos(math.pi * step / settings.steps)))

    rng = random.Random(settings.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule_of)
    model.train()
    for step in range(1, settings.steps + 1):
        batch = [demonstration(rng) for _ in range(BATCH)]
        texts = [prompts.render(tokenizer, Prompt(), problem.problem) for problem, _ in batch]
        before = prompts.tokenize(tokenizer, Prompt(), texts)
        after = tokenizer([text + EOS for _, text in batch], add_special_tokens=False)["input_ids"]
        width = max(len(a) + len(b) for a, b in zip(before, after, strict=True))
        ids = torch.full((BATCH, width), tokenizer.pad_token_id)
        labels = torch.full((BATCH, width), -100)
        for row, (a, b) in enumerate(zip(before, after, strict=True)):
            ids[row, : len(a) + len(b)] = torch.tensor(a + b)
            labels[row, len(a) : len(a) + len(b)] = torch.tensor(b)
        loss = model(input_ids=ids, labels=labels).loss  # padding stands right of what it could disturb
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress(step, settings.steps, float(loss.detach()))
