"""TRL's GRPOTrainer with the few steps that openrs does its own way. Everything else is TRL's.

1. Prompts are tokenised once, by openrs.data.prompts: the ids that the recipe's rules give are the ids that are used.
2. All completions of a step are generated at once and cut into micro-batches in order, not shuffled: with
   per_device_train_batch_size = num_generations a micro-batch is one group, as in the paper's trainer, whose loss
   (bnpo) divides by the tokens of a micro-batch. A micro-batch is cut to its own longest sequence.
3. A step's metrics carry the step's problems and where its seconds went.
4. A checkpoint is complete or absent (checkpoints.py).
"""

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import PrinterCallback
from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from openrs.rewards.functions import RewardStats
from openrs.training import checkpoints

STAGING = ".staging"


class Trainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer plus openrs's prompts, records and checkpoints.

    Args:
        prompt_ids: rendered prompt -> its token ids, for every prompt of the data set.
        folder: the run's checkpoints folder.
        stats: what the rewards count while they judge.
        kwargs: GRPOTrainer's own; the data set has columns `prompt`, `gold` and `id`.
    """

    def __init__(self, *, prompt_ids: Mapping[str, list[int]], folder: Path, stats: RewardStats, **kwargs: Any) -> None:
        self._prompt_ids = prompt_ids
        self._folder = folder
        self._stats = stats
        self._seconds: dict[str, float] = defaultdict(float)
        self._problems: list[str] = []
        self._last_log = time.perf_counter()
        self._buffered_inputs: list[dict[str, Any]] | None
        super().__init__(**kwargs)
        self.remove_callback(PrinterCallback)  # prints every metric of every step

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self._last_log = time.perf_counter()
        return super().train(*args, **kwargs)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self._prompt_ids[prompt] for prompt in prompts], None, {}

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """TRL's, less the shuffle between generation and split (GRPOTrainer._prepare_inputs), plus the cut."""
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = [cut_to_longest(part) for part in split_tensor_dict(batch, steps)]
        return self._buffered_inputs[self._step % steps]

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        with self._timed("generation"):
            return super()._generate_single_turn(*args, **kwargs)

    def _calculate_rewards(self, inputs: list[dict[str, Any]], *args: Any) -> Any:
        ids = [row["id"] for row in inputs]
        self._log_completion_extra("id", ids)
        self._log_completion_extra("gold", [row["gold"] for row in inputs])
        self._problems += dict.fromkeys(gather_object(ids))
        with self._timed("reward"):
            return super()._calculate_rewards(inputs, *args)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add seconds and problems to the step's metrics; a metric that is not a number becomes None."""
        if "loss" in logs:
            now = time.perf_counter()
            total, self._last_log = now - self._last_log, now
            spent = dict(self._seconds)
            self._seconds.clear()
            logs |= {f"time/{name}": seconds for name, seconds in spent.items()}
            logs |= {"time/update": total - sum(spent.values()), "time/step": total}
            logs |= self._judged()
        super().log(logs, start_time)

    def _judged(self) -> dict[str, float]:
        """What the judge found since the last step, over all processes; `accuracy` is the share of right answers."""
        counts = self._stats.drain()
        local = torch.tensor(list(counts.values()), dtype=torch.float64, device=self.accelerator.device)
        counts = dict(zip(counts, self.accelerator.reduce(local, reduction="sum").tolist(), strict=True))
        judged = counts["judge/completions"]
        return {**counts, "accuracy": counts["judge/correct"] / judged} if judged else counts

    def take_problems(self) -> list[str]:
        """Ids of the distinct problems since the last call, in the order of the sampler."""
        taken, self._problems = list(dict.fromkeys(self._problems)), []
        return taken

    def completions(self) -> dict[str, list[Any]]:
        """The latest generation batch: prompt, completion, id, gold, one column per reward, advantage."""
        rewards = {f"reward/{name}": list(values) for name, values in self._logs["rewards"].items()}
        extra = {name: list(values) for name, values in self._logs["extra"].items()}
        return {
            **extra,
            "prompt": list(self._logs["prompt"]),
            "completion": list(self._logs["completion"]),
            **rewards,
            "advantage": list(self._logs["advantages"]),
        }

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Every process writes its part beside; when all have, the main one makes the checkpoint complete."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            step = self.state.global_step
            staging = Path(self.args.output_dir) / f"checkpoint-{step}"
            self.processing_class.save_pretrained(staging)
            checkpoints.finish(staging, self._folder, step)
        self.accelerator.wait_for_everyone()

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """TRL writes a card at every checkpoint; ours is written by `openrs export`, with results in it."""

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        before = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - before


def cut_to_longest(batch: dict[str, Any]) -> dict[str, Any]:
    """Take away the columns that are padding in every row: left of the prompts, right of the completions.

    `batch` is a micro-batch as TRL makes it: prompt_* (B, P) padded left, completion_* and *_logps (B, C) padded right.
    """
    first = int(batch["prompt_mask"].any(dim=0).int().argmax())
    last = max(1, int(batch["completion_mask"].sum(dim=1).max()))
    width = batch["completion_mask"].size(1)
    cut = dict(batch)
    for name, tensor in batch.items():
        if name in {"prompt_ids", "prompt_mask"}:
            cut[name] = tensor[:, first:]
        elif isinstance(tensor, torch.Tensor) and tensor.dim() == 2 and tensor.size(1) == width:
            cut[name] = tensor[:, :last]
    return cut


def finite(value: Any) -> Any:
    """JSON has no NaN: what is not a number is recorded as null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
