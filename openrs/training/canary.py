"""The canary: after each weight sync vLLM and the trainer score the same fixed text; when they differ, the run ends.

A sync that silently does nothing, or leaves out a layer, is the worst fault of this set-up: samples then come from an
old policy, every curve looks plausible, and the gradient is of something else. The rules and their limits stand in
docs/training.md (The canary); the gap is the mean over all tokens of |log-probability of vLLM - of the trainer|.

1. The noise floor, before any update, is rounding. More than 0.1 nats is not: bfloat16 logits between 16 and 32 are
   multiples of 0.125, so a logit is off by 0.03 on average, the log-probability of a greedily chosen token by less
   (times 1 - p).
2. Later gaps are measured by that floor, which is kept in checkpoints: a resumed run starts with weights that vLLM has
   not.
3. Frozen: at 1e-6 a stale sampler would stay under the second rule for long. Weights that did change move some of
   vLLM's values, also when logits are rounded to 0.125, so this cannot fire on a sync that works.

The text is the first problems of the data, each with the greedy completion of the weights at the start of the attempt.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from openrs.config.schema import CanaryConfig
from openrs.errors import RunFailure

FROZEN = 0.005  # nats
LEAST = 0.005  # nats: half a percent of a token's probability, far below what clipping or KL notice; float32: 1e-5


class Reading(NamedTuple):
    """Nats: mean and largest |difference| between vLLM's and the trainer's log-probabilities of the fixed tokens; and
    how far the trainer has moved on average while vLLM's values stayed the very same."""

    gap: float
    largest: float
    moved_alone: float


class Compare:
    """Turns the log-probabilities of both sides, one list a sync, into readings."""

    def __init__(self) -> None:
        self._sampler: list[float] = []
        self._trainer: list[float] = []

    def update(self, sampler: Sequence[float], trainer: Sequence[float]) -> Reading:
        """Both sides' values for the same tokens, after one sync."""
        apart = [abs(a - b) for a, b in zip(sampler, trainer, strict=True)]
        if list(sampler) != self._sampler:
            self._sampler, self._trainer = list(sampler), list(trainer)
        moved = [abs(a - b) for a, b in zip(trainer, self._trainer, strict=True)]
        return Reading(sum(apart) / len(apart), max(apart), sum(moved) / len(moved))


class Canary:
    """Asks both sides, in whichever layout, and ends the run when they disagree.

    Args:
        prompts: token ids of the fixed prompts.
        settings: tokens of completion, and the limits.

    Attributes:
        floor: the gap of equal weights, nats; None until it is measured, or restored from a checkpoint.
    """

    def __init__(self, prompts: Sequence[list[int]], settings: CanaryConfig) -> None:
        self._prompts = list(prompts[: settings.prompts])
        self._settings = settings
        self._texts: list[tuple[list[int], int]] = []  # ids of prompt + completion, and where the completion begins
        self._compare = Compare()
        self.floor: float | None = None

    @property
    def limit(self) -> float:
        """Largest gap that is taken for rounding, nats."""
        most = self._settings.max_gap
        return most if self.floor is None else min(max(self._settings.times * self.floor, LEAST), most)

    def check(self, trainer: Any) -> dict[str, float]:
        """Call on every process right after a sync. Returns the metrics of the process that is worst off.

        Raises RunFailure, on every process, when the two sides have come apart on any of them.
        """
        from accelerate.utils import gather_object

        if not self._prompts:
            return {}
        mine = []
        if trainer.vllm_mode == "colocate" or trainer.accelerator.is_main_process:
            sampler = _Server(trainer) if trainer.vllm_mode == "server" else _Local(trainer)
            if not self._texts:
                written = sampler.complete(self._prompts, self._settings.tokens)
                self._texts = [(a + b, len(a)) for a, b in zip(self._prompts, written, strict=True)]
            mine = [self._compare.update(sampler.score(self._texts), score(trainer, self._texts))]
        readings: list[Reading] = gather_object(mine)
        self._judge(readings, trainer.state.global_step)
        gap = max(reading.gap for reading in readings)
        if trainer.state.global_step == 0:
            self.floor = gap
        return {
            "canary/gap": gap,
            "canary/gap_max": max(reading.largest for reading in readings),
            "canary/limit": self.limit,
        }

    def _judge(self, readings: Sequence[Reading], step: int) -> None:
        key = "max_gap" if self.limit == self._settings.max_gap else "times"
        apart = [reading.gap for reading in readings if not reading.gap <= self.limit]  # so that NaN counts
        alone = max(reading.moved_alone for reading in readings)
        if apart:
            of = key if key == "max_gap" else f"{self._settings.times:g} x {self.floor:.2g} of equal weights"
            what = f"their log-probabilities of the same text are {apart[0]:.3g} nats apart on average"
            what += f", limit {self.limit:.3g} ({of})"
        elif alone > FROZEN:
            what = f"the trainer has moved by {alone:.3g} nats on average, vLLM not by a digit"
        else:
            return
        raise RunFailure(
            f"after the weight sync of step {step} vLLM and the trainer are not the same model: {what}",
            "completions would come from another policy than the one that is trained",
            "the same command resumes from the last checkpoint with a new vLLM; if it happens again, read"
            f" docs/training.md on the canary. monitors.canary.{key} sets the limit",
        )


def score(trainer: Any, texts: Sequence[tuple[list[int], int]]) -> list[float]:
    """The trainer's log-probability of each completion token, at temperature 1, one text after the other.

    The model's own forward, not TRL's fused one, which divides by grpo.temperature; with LoRA, adapters included.
    """
    import torch

    model = trainer.accelerator.unwrap_model(trainer.model)
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    was_training = model.training
    model.eval()  # no dropout
    values: list[float] = []
    with torch.no_grad(), trainer.accelerator.autocast():
        for ids, begin in texts:
            kept = len(ids) - begin
            row = torch.tensor([ids], device=trainer.accelerator.device)
            logits = type(causal).forward(causal, input_ids=row, logits_to_keep=kept + 1, use_cache=False).logits
            scores = logits[0, :-1].float().log_softmax(dim=-1)
            values += scores.gather(1, row[0, begin:, None])[:, 0].tolist()
    model.train(was_training)
    return values


class _Local:
    """vLLM inside this process."""

    def __init__(self, trainer: Any) -> None:
        self._llm = trainer.vllm_generation.llm
        if trainer.vllm_generation.enable_sleep_mode:
            self._llm.wake_up(tags=["kv_cache"])  # the weights are awake since the sync; TRL puts both to sleep again

    def complete(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        outputs = self._ask(prompts, max_tokens=tokens)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def score(self, texts: Sequence[tuple[list[int], int]]) -> list[float]:
        outputs = self._ask([ids for ids, _ in texts], max_tokens=1, prompt_logprobs=0)
        return [
            output.prompt_logprobs[place][ids[place]].logprob
            for output, (ids, begin) in zip(outputs, texts, strict=True)
            for place in range(begin, len(ids))
        ]

    def _ask(self, prompts: Sequence[list[int]], **settings: Any) -> Any:
        from vllm import SamplingParams

        requests = [{"prompt_token_ids": ids} for ids in prompts]
        # A seed of its own: vLLM would draw one from numpy, and a resumed attempt would sample other completions.
        return self._llm.generate(requests, SamplingParams(temperature=0.0, seed=0, **settings), use_tqdm=False)


class _Server:
    """vLLM behind HTTP, asked through TRL's client."""

    def __init__(self, trainer: Any) -> None:
        self._client = trainer.vllm_generation.vllm_client

    def complete(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        return [list(choice["token_ids"]) for choice in self._ask(prompts, max_tokens=tokens, return_token_ids=True)]

    def score(self, texts: Sequence[tuple[list[int], int]]) -> list[float]:
        outputs = self._ask([ids for ids, _ in texts], max_tokens=1, prompt_logprobs=0)
        return [
            choice["prompt_logprobs"][place][str(ids[place])]["logprob"]
            for choice, (ids, begin) in zip(outputs, texts, strict=True)
            for place in range(begin, len(ids))
        ]

    def _ask(self, prompts: Sequence[list[int]], **settings: Any) -> Any:
        body = {"model": self._client.model, "prompt": list(prompts), "temperature": 0.0, "seed": 0, **settings}
        return self._client._post(f"{self._client.base_url}/v1/completions", json=body)["choices"]
