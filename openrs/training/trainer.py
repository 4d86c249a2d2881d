"""TRL's GRPOTrainer with the few steps that openrs does its own way. Everything else is TRL's.

1. Prompts are tokenised once, by openrs.data.prompts: the ids that the recipe's rules give are the ids that are used.
2. All completions of a step are generated at once and cut into micro-batches in order, not shuffled: with
   per_device_train_batch_size = num_generations a micro-batch is one group, as in the paper's trainer, whose loss
   (bnpo) divides by the tokens of a micro-batch. No padding is computed that logprobs.py can avoid.
3. A step's metrics carry the step's problems and where its seconds went.
4. A checkpoint is complete or absent (checkpoints.py), and holds what a run needs to go on as if nothing had been:
   besides what transformers saves, the position in the generation batch and, in its middle, the batch. The order of
   the problems depends on seed and epoch only (TRL's sampler starts a resumed second epoch with the first's order).
5. A loss or gradient that is no number ends the run before the weights are touched, and its batch is kept.
"""

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import PrinterCallback
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler, split_tensor_dict

from openrs.errors import RunFailure
from openrs.rewards.functions import RewardStats
from openrs.run import checkpoints
from openrs.run.directory import Run
from openrs.run.files import write_json
from openrs.training import disk
from openrs.training.canary import Canary
from openrs.training.logprobs import allow_packing, log_probabilities
from openrs.training.measures import Measures


class Trainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer plus openrs's prompts, records and checkpoints.

    Args:
        prompt_ids: rendered prompt -> its token ids, for every prompt of the data set.
        folder: the run's checkpoints folder.
        stats: what the rewards count while they judge.
        ahead: begins to judge completions against golds, while the reference model's log-probabilities are computed.
        canary: compares vLLM with the trainer after each weight sync; none without vLLM.
        kwargs: GRPOTrainer's own; the data set has columns `prompt`, `gold` and `id`.
    """

    def __init__(
        self,
        *,
        prompt_ids: Mapping[str, list[int]],
        folder: Path,
        stats: RewardStats,
        ahead: Callable[[Sequence[str], Sequence[str], Sequence[Any]], None] | None = None,
        canary: Canary | None = None,
        **kwargs: Any,
    ) -> None:
        self._prompt_ids = prompt_ids
        self._folder = folder
        self._measures = Measures(stats)
        self._ahead = ahead
        self._golds: list[str] = []  # of the batch that is generated
        self._canary = canary
        self._readings: dict[str, float] = {}
        self._latest_logps: torch.Tensor
        self._last_loaded_step: int  # the step whose weights vLLM has
        self._seconds: dict[str, float] = defaultdict(float)
        self._problems: list[str] = []
        self._last_log = time.perf_counter()
        self._sampler: EpochSampler
        self._step: int  # micro-batches so far
        self._buffered_inputs: list[dict[str, Any]] | None
        self.checkpoint_seconds = 0.0
        super().__init__(**kwargs)
        models = [self.accelerator.unwrap_model(of) for of in (self.model, self.ref_model) if of is not None]
        self._packing = sum(map(allow_packing, models)) == len(models)
        self.remove_callback(PrinterCallback)  # prints every metric of every step

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self._last_log = time.perf_counter()
        return super().train(*args, **kwargs)

    def _get_train_sampler(self, dataset: Any = None) -> "EpochSampler":
        of = super()._get_train_sampler(dataset)
        self._sampler = EpochSampler(
            of.data_source, of.mini_repeat_count, of.batch_size, of.repeat_count, of.shuffle, of.seed
        )
        return self._sampler

    def _run_epoch(self, *, epoch: int, **kwargs: Any) -> None:
        self._sampler.set_epoch(epoch)  # accelerate does not reach a sampler behind a shard and a skip
        super()._run_epoch(epoch=epoch, **kwargs)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self._prompt_ids[prompt] for prompt in prompts], None, {}

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """TRL's, less the shuffle between generation and split (GRPOTrainer._prepare_inputs)."""
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(batch, steps)
        return self._buffered_inputs[self._step % steps]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Any:
        self._stop_unless_weights_are_finite()
        self._golds = [row["gold"] for row in inputs]
        return super()._generate_and_score_completions(inputs)

    def _generate(self, prompts: list[Any]) -> Any:
        """TRL's, whose fourth result is the completions' texts; what comes next is the reference model."""
        found = super()._generate(prompts)
        if self._ahead is not None:
            self._ahead(found[3], self._golds, prompts)
        return found

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        if self.use_vllm and self.state.global_step != self._last_loaded_step:
            with self._timed("sync"):
                self.vllm_generation.sync_weights()
                self._last_loaded_step = self.state.global_step
            if self._canary is not None:
                with self._timed("canary"):
                    self._readings = self._canary.check(self)
        with self._timed("generation"):
            return super()._generate_single_turn(*args, **kwargs)

    def _calculate_rewards(self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, *args: Any) -> Any:
        ids = [row["id"] for row in inputs]
        self._log_completion_extra("id", ids)
        self._log_completion_extra("gold", [row["gold"] for row in inputs])
        self._problems += dict.fromkeys(gather_object(ids))
        self._measures.texts(completions)
        with self._timed("reward"):
            return super()._calculate_rewards(inputs, prompts, completions, *args)

    def _get_per_token_logps_and_entropies(
        self, model: Any, *rows: Any, batch_size: int | None = None, compute_entropy: bool = False, **others: Any
    ) -> Any:
        """TRL's numbers without its padding (logprobs.py). rows: ids and mask, each (B, P + C), and C.

        Returns log-probabilities (B, C), entropies (B, C) or None, and no auxiliary loss.
        """
        if any(value is not None and value is not False for value in others.values()):  # images, mixtures of experts
            return super()._get_per_token_logps_and_entropies(
                model, *rows, batch_size=batch_size, compute_entropy=compute_entropy, **others
            )
        ids, mask, completion = rows
        size = batch_size or len(ids)
        with self.accelerator.autocast():
            parts = [
                log_probabilities(model, i, m, completion, packing=self._packing, entropy=compute_entropy)
                for i, m in zip(ids.split(size), mask.split(size), strict=True)
            ]
        logps, entropies = (None if of[0] is None else torch.cat(of) for of in zip(*parts, strict=True))
        self._latest_logps = logps.detach()  # type: ignore[union-attr]
        return logps, entropies, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        loss = super()._compute_loss(model, inputs)
        if "ref_per_token_logps" in inputs:
            self._measures.kl(self._latest_logps, inputs["ref_per_token_logps"], inputs["completion_mask"])
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add seconds and problems to the step's metrics; a metric that is not a number becomes None."""
        if "loss" in logs:
            now = time.perf_counter()
            total, self._last_log = now - self._last_log, now
            spent = dict(self._seconds)
            self._seconds.clear()
            logs |= {f"time/{name}": seconds for name, seconds in spent.items()}
            logs |= {"time/update": total - sum(spent.values()), "time/step": total}
            logs |= self._measures.drain(self.accelerator) | self._readings
        super().log(logs, start_time)

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

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self._stop_unless_finite("loss", loss.detach(), inputs)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        if norm is not None and self.accelerator.scaler is None:  # fp16 overflows; its scaler leaves such a step out
            self._stop_unless_finite("norm of the gradient", norm, {"batch": self._buffered_inputs})
        return norm

    def _stop_unless_finite(self, what: str, value: Any, batch: dict[str, Any]) -> None:
        """Raises RunFailure on every process when the value of one is no number; each leaves its batch in the run."""
        value = torch.as_tensor(value, dtype=torch.float64, device=self.accelerator.device)
        bad = self.accelerator.reduce((~torch.isfinite(value)).double(), reduction="sum")
        if not bad.item():
            return
        step = self.state.global_step + 1
        folder = Run(self._folder.parent).failures / f"step-{step:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        rank = self.accelerator.process_index
        torch.save({"value": value.cpu(), "inputs": batch}, folder / f"batch-{rank}.pt")
        write_json(folder / f"completions-{rank}.json", self.completions())
        raise RunFailure(
            f"step {step}: the {what} is {value.item()}",
            "going on would make every weight NaN",
            f"look at the batch in {folder}; the last checkpoint is sound. A smaller learning rate, or float32 for the"
            " reference, are the usual cures",
        )

    def _stop_unless_weights_are_finite(self) -> None:
        """Raises RunFailure before anything is generated with weights that are NaN or Inf: after a learning rate that
        was far too large, say. (The last step's weights are looked at when its checkpoint is written.)"""
        if self.state.global_step == 0:
            return
        trained = [(name, value.detach()) for name, value in self.model.named_parameters() if value.requires_grad]
        ends = torch.stack([torch.stack(value.aminmax()).float() for _, value in trained])  # NaN goes through both
        bad = (~torch.isfinite(ends)).any(dim=1).nonzero().flatten().tolist()
        if bad:
            there = checkpoints.list_complete(self._folder)
            what = f"{len(bad)} of {len(trained)} weight tensors are"
            raise checkpoints.nonfinite_weights(self.state.global_step, what, trained[bad[0]][0], there)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Every process writes its part beside; when all have, the main one makes the checkpoint complete.

        Raises RunFailure when the disk is full or broken; earlier checkpoints stay as they were.
        """
        before = time.perf_counter()
        step = self.state.global_step
        staging = Path(self.args.output_dir) / f"checkpoint-{step}"
        with self._timed("checkpoint"), disk.cleanup_on_disk_fault(staging, step):
            super()._save_checkpoint(model, trial)
            self._save_position(staging)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                self.processing_class.save_pretrained(staging)
                checkpoints.finish(staging, self._folder, step)
            self.accelerator.wait_for_everyone()
        self.checkpoint_seconds = time.perf_counter() - before

    def _save_position(self, staging: Path) -> None:
        """Where in the generation batch the run stands, and each process's part of that batch while it is in use."""
        if self.is_world_process_zero():
            write_json(staging / "position.json", {"micro_steps": self._step})
        if self._step % (self.args.steps_per_generation * self.num_iterations):
            torch.save(self._buffered_inputs, staging / f"batch-{self.accelerator.process_index}.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        self.state.compute_steps(self.args, self.state.max_steps)  # save_steps of the recipe, not the checkpoint's
        self._step = json.loads((Path(checkpoint) / "position.json").read_text())["micro_steps"]
        batch = Path(checkpoint) / f"batch-{self.accelerator.process_index}.pt"
        if batch.is_file():
            self._buffered_inputs = torch.load(batch, map_location=self.accelerator.device, weights_only=True)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """TRL writes a card at every checkpoint; ours is written by `openrs export`, with results in it."""

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        before = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - before


class EpochSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's sampler, whose order of an epoch can be had without having gone through the epochs before."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed(self.seed)
            for _ in range(self._epoch):  # what TRL's has drawn by then
                torch.randperm(self.num_samples, generator=self.generator)
        return super().__iter__()  # type: ignore[no-any-return]


def finite(value: Any) -> Any:
    """JSON has no NaN: what is not a number is recorded as null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
