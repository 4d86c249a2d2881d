"""The GRPO step: TRL's GRPOTrainer, with what openrs does its own way. Read it in the order in which a step happens.

    for each optimizer step:
        prompts      = sample the step's problems            _get_train_sampler, _run_epoch (EpochSampler)
        once per generation batch                            _prepare_inputs: cut into micro-batches, not shuffled
            refuse weights that are NaN or Inf               _generate_and_score_completions
            ids          = look up the prompts' tokens       _tokenize_prompts
            sync weights to vLLM, check the canary           _generate_single_turn
            completions  = generate                          _generate_single_turn, then TRL
            ref_logps    = reference log-probabilities       _get_per_token_logps_and_entropies
            verdicts     = judge; rewards = reward functions _calculate_rewards
            advantages   = (r - mean(group)) / std(group)    TRL
        for each micro-batch (one group of completions)
            logps        = policy log-probabilities          _get_per_token_logps_and_entropies
            loss         = clipped ratio, beta * KL          TRL; _compute_loss measures KL, compute_loss keeps it
            backward                                         TRL
        clip the gradient                                    TRL; _get_grad_norm refuses losses and a norm of NaN or Inf
        optimizer and learning rate step                     TRL
        record metrics                                       log
        checkpoint, every grpo.save_steps                    _save_checkpoint; resume: _load_optimizer_and_scheduler

Which members of TRL and transformers this relies on, and why, is in tests/training/trl_members.py; a test compares
them with the installed versions.

With per_device_train_batch_size = num_generations a micro-batch is one group, as in the paper's trainer, whose loss
(bnpo) divides by the tokens of a micro-batch: that is why completions must not be shuffled between micro-batches.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object, is_peft_model, set_seed
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PrinterCallback
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler, split_tensor_dict

from openrs.errors import RunFailure
from openrs.outside import read_shape
from openrs.rewards.functions import RewardSet
from openrs.run import checkpoints
from openrs.run.directory import Run
from openrs.run.files import write_json
from openrs.training import disk, lora
from openrs.training.balance import Batch, deal_by_length
from openrs.training.canary import Canary
from openrs.training.logprobs import allow_packing, log_probabilities
from openrs.training.measures import Measures
from openrs.training.recompute import Recompute

CHECKPOINT = 600.0  # seconds for a checkpoint besides what its bytes take

Row = dict[str, Any]  # of the data set: prompt, gold (the reference answer) and id


class Trainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer plus openrs's prompts, records and checkpoints.

    Args:
        prompt_ids: rendered prompt -> its token ids, for every prompt of the data set.
        folder: the run's checkpoints folder.
        rewards: the reward functions, and the judge that they need.
        canary: compares vLLM with the trainer after each weight sync; None without vLLM.
        recompute: which layers the backward computes again; None leaves that to gradient_checkpointing.
        dealing: whether micro-batches go to the processes by length.
        expect: told the seconds that a checkpoint may take, and again after each of its files (the watchdog's).
        kwargs: GRPOTrainer's own; the data set has columns `prompt`, `gold` and `id`.
    """

    def __init__(
        self,
        *,
        prompt_ids: Mapping[str, list[int]],
        folder: Path,
        rewards: RewardSet,
        canary: Canary | None = None,
        recompute: Recompute | None = None,
        dealing: bool = False,
        expect: Callable[[float], None] = lambda _: None,
        **kwargs: Any,
    ) -> None:
        self._prompt_ids = prompt_ids
        self._folder = folder
        self._rewards = rewards
        self._measures = Measures(rewards.stats)
        self._canary = canary
        self._recompute = recompute
        self._dealing = dealing
        self._expect = expect
        self._canary_metrics: dict[str, float] = {}
        self._latest_logps: torch.Tensor
        self._losses: list[tuple[torch.Tensor, Batch]] = []  # of the step's micro-batches
        self._last_loaded_step: int  # the step whose weights vLLM has
        self._seconds: dict[str, float] = defaultdict(float)
        self._problems: list[str] = []
        self._last_log = time.perf_counter()
        self._sampler: EpochSampler
        self._step: int  # micro-batches so far
        self._buffered_inputs: list[Batch] | None
        self.checkpoint_seconds = 0.0
        super().__init__(reward_funcs=rewards.functions, **kwargs)
        models = [self.accelerator.unwrap_model(model) for model in (self.model, self.ref_model) if model is not None]
        self._packing = sum(map(allow_packing, models)) == len(models)
        self.remove_callback(PrinterCallback)  # prints every metric of every step
        if self.use_vllm:
            self._take_over_vllm()

    def _take_over_vllm(self) -> None:
        """What TRL's vLLM does otherwise than a run needs it.

        Colocated vLLM has just seeded python, numpy and torch of this process with the process's index, and draws the
        seeds of its requests from numpy: without a new seed every run would sample the same noise, whatever grpo.seed.
        """
        if self.vllm_mode == "colocate":
            set_seed(self.args.seed, device_specific=True)
        generation = self.vllm_generation
        if is_peft_model(generation.model):
            generation._iter_named_params = partial(lora.merged_weights, generation.model)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self._last_log = time.perf_counter()
        return super().train(*args, **kwargs)

    # --- sample the step's problems -----------------------------------------------------------------------------------

    def _get_train_sampler(self, dataset: Dataset | None = None) -> "EpochSampler":
        sampler = super()._get_train_sampler(dataset)
        self._sampler = EpochSampler(
            sampler.data_source,
            sampler.mini_repeat_count,
            sampler.batch_size,
            sampler.repeat_count,
            sampler.shuffle,
            sampler.seed,
        )
        return self._sampler

    def _run_epoch(self, *, epoch: int, **kwargs: Any) -> None:
        self._sampler.epoch = epoch  # accelerate does not reach a sampler behind a shard and a skip
        super()._run_epoch(epoch=epoch, **kwargs)

    # --- once per generation batch ------------------------------------------------------------------------------------

    def _prepare_inputs(self, generation_batch: list[Row]) -> Batch:
        """The next micro-batch. TRL's, without its shuffle between generation and split."""
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)  # type: ignore[no-any-return]
        steps: int = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(batch, steps)
            if self._dealing and self.accelerator.num_processes > 1:
                self._buffered_inputs = deal_by_length(self._buffered_inputs, self.accelerator)
        return self._buffered_inputs[self._step % steps]

    def _generate_and_score_completions(self, inputs: list[Row]) -> Batch:
        self._stop_unless_weights_are_finite()
        return super()._generate_and_score_completions(inputs)  # type: ignore[no-any-return]

    def _stop_unless_weights_are_finite(self) -> None:
        """Raises RunFailure before anything is generated with weights that are NaN or Inf: after a learning rate that
        was far too large, say. (The last step's weights are looked at when its checkpoint is written.)"""
        if self.state.global_step == 0:
            return
        trained = [(name, value) for name, value in self.model.named_parameters() if value.requires_grad]
        bad = _nonfinite([value for _, value in trained])
        if bad:
            complete = checkpoints.list_complete(self._folder)
            what = f"{len(bad)} of {len(trained)} weight tensors are"
            raise checkpoints.nonfinite_weights(self.state.global_step, what, trained[bad[0]][0], complete)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Prompts are tokenised once, by openrs.data.prompts: the ids of the recipe's rules are the ids that are
        used."""
        return [self._prompt_ids[prompt] for prompt in prompts], None, {}

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        """Sync weights to vLLM, check the canary, generate."""
        if self.use_vllm and self.state.global_step != self._last_loaded_step:
            with self._timed("sync"):
                self.vllm_generation.sync_weights()
                self._last_loaded_step = self.state.global_step
            if self._canary is not None:
                with self._timed("canary"):
                    self._canary_metrics = self._canary.check(self)
        with self._timed("generation"):
            return super()._generate_single_turn(*args, **kwargs)

    def _calculate_rewards(
        self, inputs: list[Row], prompts: list[str], completions: list[str], completion_ids_list: list[list[int]]
    ) -> torch.Tensor:
        """Judge the batch once; the reward functions find the verdicts in a column. Returns rewards (B, functions) of
        all processes."""
        ids, golds = [row["id"] for row in inputs], [row["gold"] for row in inputs]
        self._log_completion_extra("id", ids)
        self._log_completion_extra("gold", golds)
        self._problems += dict.fromkeys(gather_object(ids))
        self._measures.texts(completions)
        with self._timed("reward"):
            verdicts = self._rewards.judge(completions, golds, prompts)
            if self._rewards.rules:
                self._log_completion_extra("verdict", [str(row[self._rewards.rules[0]]) for row in verdicts])
            judged = [row | {"verdicts": verdict} for row, verdict in zip(inputs, verdicts, strict=True)]
            return super()._calculate_rewards(judged, prompts, completions, completion_ids_list)

    # --- for each micro-batch -----------------------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **multimodal: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """TRL's numbers without its padding (logprobs.py), for policy and reference.

        input_ids, attention_mask: (B, P + C) with C = logits_to_keep. Returns log-probabilities (B, C), entropies
        (B, C) or None, and no auxiliary loss.
        """
        if any(value is not None and value is not False for value in multimodal.values()):  # or a mixture of experts
            return super()._get_per_token_logps_and_entropies(  # type: ignore[no-any-return]
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size=batch_size,
                compute_entropy=compute_entropy,
                **multimodal,
            )
        size = batch_size or len(input_ids)
        options: dict[str, Any] = {"packing": self._packing, "entropy": compute_entropy}
        if self._recompute is not None and torch.is_grad_enabled():
            options["starting"] = self._recompute.start_forward
        with self.accelerator.autocast():
            parts = [
                log_probabilities(model, ids, mask, logits_to_keep, **options)
                for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True)
            ]
        logps = torch.cat([part for part, _ in parts])
        entropies = [entropy for _, entropy in parts if entropy is not None]
        self._latest_logps = logps.detach()
        return logps, torch.cat(entropies) if entropies else None, None

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: int | None = None
    ) -> torch.Tensor:
        loss: torch.Tensor = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if model.training:
            self._losses.append((loss.detach(), inputs))
        return loss

    def _compute_loss(self, model: nn.Module, inputs: Batch) -> torch.Tensor:
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        if "ref_per_token_logps" in inputs:
            self._measures.kl(self._latest_logps, inputs["ref_per_token_logps"], inputs["completion_mask"])
        return loss

    # --- clip, step, record -------------------------------------------------------------------------------------------

    def _get_grad_norm(self, model: nn.Module, grad_norm: torch.Tensor | float | None = None) -> torch.Tensor | float:
        norm: torch.Tensor | float = super()._get_grad_norm(model, grad_norm)
        values: list[tuple[str, torch.Tensor | float, Batch]] = [("loss", *pair) for pair in self._losses]
        self._losses.clear()
        if norm is not None and self.accelerator.scaler is None:  # fp16 overflows; its scaler leaves such a step out
            values.append(("norm of the gradient", norm, {"batch": self._buffered_inputs}))
        self._stop_unless_finite(values)
        return norm

    def _stop_unless_finite(self, values: list[tuple[str, torch.Tensor | float, Batch]]) -> None:
        """Raises RunFailure on every process when a value of one is NaN or Inf; each leaves its batch in the run.

        Once a step: a look at each micro-batch would let all GPUs wait for each other between forward and backward.
        """
        device = self.accelerator.device
        each = torch.stack([torch.as_tensor(value, dtype=torch.float64, device=device) for _, value, _ in values])
        bad = self.accelerator.reduce((~torch.isfinite(each)).double(), reduction="sum").nonzero().flatten().tolist()
        if not bad:
            return
        (what, _, batch), value = values[bad[0]], each[bad[0]]
        step = self.state.global_step + 1
        folder = checkpoints.folder_of(Run(self._folder.parent).failures, step)
        folder.mkdir(parents=True, exist_ok=True)
        rank = self.accelerator.process_index
        torch.save({"value": value.cpu(), "inputs": batch}, folder / f"batch-{rank}.pt")
        write_json(folder / f"completions-{rank}.json", self.completions())
        raise RunFailure(
            f"step {step}: the {what} is {value.item()}",
            "the next update would make every weight NaN",
            f"look at the batch in {folder}; the last checkpoint is sound. A smaller learning rate, or float32 for the"
            " reference, are the usual cures",
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add to the step's metrics where its seconds went and what measures.py counted."""
        if "loss" in logs:
            now = time.perf_counter()
            total, self._last_log = now - self._last_log, now
            spent = dict(self._seconds)
            self._seconds.clear()
            logs |= {f"time/{name}": seconds for name, seconds in spent.items()}
            logs |= {"time/update": total - sum(spent.values()), "time/step": total}
            logs |= self._measures.drain(self.accelerator) | self._canary_metrics
        super().log(logs, start_time)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        before = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - before

    def take_problems(self) -> list[str]:
        """Ids of the distinct problems since the last call, in the order of the sampler."""
        taken, self._problems = list(dict.fromkeys(self._problems)), []
        return taken

    def completions(self) -> dict[str, list[Any]]:
        """The latest generation batch: prompt, completion, id, gold, the judge's verdict where a reward asks for one,
        one column per reward, advantage."""
        rewards = {f"reward/{name}": list(values) for name, values in self._logs["rewards"].items()}
        extra = {name: list(values) for name, values in self._logs["extra"].items()}
        return {
            **extra,
            "prompt": list(self._logs["prompt"]),
            "completion": list(self._logs["completion"]),
            **rewards,
            "advantage": list(self._logs["advantages"]),
        }

    # --- checkpoint and resume ----------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Every process writes its part to a staging folder; when all have, the main one makes the checkpoint complete.

        Raises RunFailure when the disk is full or broken; earlier checkpoints stay as they were.
        """
        before = time.perf_counter()
        step = self.state.global_step
        staging = Path(self.args.output_dir) / f"checkpoint-{step}"
        # At most float32 weights and both moments, DeepSpeed's copy of the weights, and the weights themselves.
        most = sum(16 * value.numel() for value in self.model.parameters() if value.requires_grad)
        alive = partial(self._expect, CHECKPOINT + disk.slowest(most))
        alive()
        with self._timed("checkpoint"), disk.cleanup_on_disk_fault(staging, step):
            self._stop_unless_optimizer_is_finite()
            super()._save_checkpoint(model, trial)
            self._save_position(staging)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                self.processing_class.save_pretrained(staging)
                checkpoints.finish(staging, self._folder, step, alive)
            self.accelerator.wait_for_everyone()
        self.checkpoint_seconds = time.perf_counter() - before

    def _stop_unless_optimizer_is_finite(self) -> None:
        """Raises RunFailure on every process when the optimizer's state of one holds NaN or Inf: an infinite second
        moment leaves the weights finite, and keeps them from ever changing again."""
        if self.optimizer is None or self.args.save_only_model:
            return
        state = [
            (name, value)
            for tensors in self.optimizer.state.values()
            for name, value in tensors.items()
            if name != "step" and isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel()
        ]
        bad = _nonfinite([value for _, value in state]) if state else []
        count = torch.tensor([len(bad)], device=self.accelerator.device)
        if int(self.accelerator.reduce(count, reduction="sum")):
            what = f"{len(bad)} of {len(state)} tensors of the optimizer's state are"
            name = state[bad[0]][0] if bad else "another process's"
            complete = checkpoints.list_complete(self._folder)
            raise checkpoints.nonfinite_weights(self.state.global_step, what, name, complete)

    def _save_position(self, staging: Path) -> None:
        """Where in the generation batch the run is, the canary's noise floor, and each process's part of the batch in
        use."""
        if self.is_world_process_zero():
            floor = {} if self._canary is None else {"canary_floor": self._canary.floor}
            write_json(staging / "position.json", {"micro_steps": self._step} | floor)
        if self._step % (self.args.steps_per_generation * self.num_iterations):
            torch.save(self._buffered_inputs, staging / f"batch-{self.accelerator.process_index}.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Resume: what transformers restores, then the position in the generation batch and the batch itself."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        self.state.compute_steps(self.args, self.state.max_steps)  # save_steps of the recipe, not the checkpoint's
        position = read_shape(Path(checkpoint) / "position.json", {"micro_steps": int, "canary_floor?": float})
        self._step = position["micro_steps"]
        if self._canary is not None:
            self._canary.floor = position.get("canary_floor")
        batch = Path(checkpoint) / f"batch-{self.accelerator.process_index}.pt"
        if batch.is_file():
            self._buffered_inputs = torch.load(batch, map_location=self.accelerator.device, weights_only=True)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """TRL writes a card at every checkpoint; ours is written by `openrs export`, with results in it."""


def _nonfinite(tensors: list[torch.Tensor]) -> list[int]:
    """Which of the tensors hold NaN or Inf, with one wait for the device."""
    ends = torch.stack([torch.stack(value.detach().aminmax()).float() for value in tensors])  # NaN goes through both
    return [int(index) for index in (~torch.isfinite(ends)).any(dim=1).nonzero()]


class EpochSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's sampler, with an order of problems that depends on seed and epoch only: TRL's starts a resumed second epoch
    with the order of the first."""

    epoch = 0

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed(self.seed)
            for _ in range(self.epoch):  # the orders of the epochs before
                torch.randperm(self.num_samples, generator=self.generator)
        return super().__iter__()  # type: ignore[no-any-return]
