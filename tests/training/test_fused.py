"""hardware.fused_kernels without a GPU: liger-kernel is not here, so what it does to a model is played in plain torch.

The stand-ins do in place what liger 0.8.5's kernels do in place (ops/rope.py, swiglu.py and rms_norm.py), unseen by
autograd. The kernels themselves, run by Triton's interpreter, gave the same answers (dev/LOG.md).
"""

import io
import json
import sys
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any

import pytest
import torch
import transformers.integrations.liger as integration
from fixed import GROUP, PARITY, FixedTrainer, Recorded, fixed_trainer, losses_and_gradient, parity_recipe, relative
from torch.autograd import Function
from torch.nn import functional
from transformers.models.qwen2 import modeling_qwen2

from openrs.config.load import diff, load
from openrs.config.schema import Recipe
from openrs.errors import UserError
from openrs.planner.shapes import read_config
from openrs.run.directory import Run
from openrs.run.progress import Progress
from openrs.training import launch
from openrs.training.fused import use_fused_kernels
from openrs.training.recompute import Recompute

pytestmark = pytest.mark.slow

OLD_ROTARY = modeling_qwen2.apply_rotary_pos_emb


class Turn(Function):
    """The rotary embedding in the memory of its inputs, forward and backward."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, cos: Any, sin: Any) -> Any:
        ctx.save_for_backward(cos, sin)
        for states, turned in zip((q, k), OLD_ROTARY(q, k, cos, sin), strict=True):
            states.data.copy_(turned)
        return q.view_as(q), k.view_as(k)

    @staticmethod
    def backward(ctx: Any, dq: Any, dk: Any) -> Any:
        cos, sin = ctx.saved_tensors
        return *OLD_ROTARY(dq, dk, cos, -sin), None, None


def liger_rotary_pos_emb(q: Any, k: Any, cos: Any, sin: Any) -> Any:
    return Turn.apply(q, k, cos, sin)


liger_rotary_pos_emb.__module__ = "liger_kernel.transformers.rope"


class Gate(Function):
    """silu(a) * b, whose gradients take the place of a and b."""

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        ctx.save_for_backward(a, b)
        return functional.silu(a) * b

    @staticmethod
    def backward(ctx: Any, dc: Any) -> Any:
        a, b = ctx.saved_tensors
        sigmoid = torch.sigmoid(a)
        da, db = dc * b * (sigmoid + a * sigmoid * (1 - sigmoid)), dc * a * sigmoid
        a.data.copy_(da)
        b.data.copy_(db)
        return a, b


class LigerSwiGLUMLP:
    def forward(self: Any, x: Any) -> Any:
        return self.down_proj(Gate.apply(self.gate_proj(x), self.up_proj(x)))


class LigerRMSNorm:
    def forward(self: Any, x: Any) -> Any:
        return functional.rms_norm(x, self.weight.shape, self.weight, self.variance_epsilon)


def patch(module: Any, kernel: Any) -> None:
    module.forward = MethodType(kernel.forward, module)
    module._get_name = lambda: kernel.__name__


def played(model: Any, **kernels: bool) -> None:
    """What liger does to a Qwen2 that exists already."""
    assert not kernels["cross_entropy"]
    assert not kernels["fused_linear_cross_entropy"]
    assert not any(kernels.values()), "some kinds of model raise for a kernel that they are asked for"
    for module in model.modules():
        if isinstance(module, modeling_qwen2.Qwen2RMSNorm):
            patch(module, LigerRMSNorm)
        if isinstance(module, modeling_qwen2.Qwen2MLP) and "swiglu" not in kernels:
            patch(module, LigerSwiGLUMLP)
    if "rope" not in kernels:
        modeling_qwen2.apply_rotary_pos_emb = liger_rotary_pos_emb


@pytest.fixture(autouse=True)
def _liger(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("liger_kernel.transformers")
    package._apply_liger_kernel_to_instance = played
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", package)
    monkeypatch.setattr(integration, "is_liger_kernel_available", lambda: True)
    monkeypatch.setattr(modeling_qwen2, "apply_rotary_pos_emb", OLD_ROTARY)


def with_recompute(choice: Any) -> Recipe:
    recipe = parity_recipe("grpo.gradient_checkpointing=true")
    hardware = recipe.hardware.model_copy(update={"recompute": choice, "fused_kernels": True})
    return recipe.model_copy(update={"hardware": hardware})


Step = tuple[list[float], dict[str, torch.Tensor]]


def step(folder: Path, choice: Any, fused: Recipe | None = None) -> tuple[Step, list[str]]:
    """Losses and gradient of a step; the kernels that the manifest names."""
    recorded, recipe = Recorded(), with_recompute(choice)
    recompute = None if choice == "all" else Recompute(choice, read_config(PARITY / "policy" / "config.json"), 4)
    rewards = recorded.rewards.flatten().tolist()
    trainer = fixed_trainer(recipe, folder, recorded.prompt_ids, rewards, recompute)
    names = [] if fused is None else use(trainer, fused, folder)
    trainer.give(recorded.completion_ids)
    trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
    return losses_and_gradient(trainer, [f"p{i // GROUP}" for i in range(2 * GROUP)]), names


def use(trainer: FixedTrainer, recipe: Recipe, folder: Path) -> list[str]:
    """The kernels that the manifest and the log name."""
    run, said = Run(folder / "run"), io.StringIO()
    run.path.mkdir(parents=True)
    run.manifest.write_text('{"attempts": []}')
    use_fused_kernels(trainer, recipe, run, Progress(stream=said))
    names: list[str] = json.loads(run.manifest.read_text())["fused_kernels"]
    assert ", ".join(names) in said.getvalue()
    return names


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Step:
    return step(tmp_path_factory.mktemp("plain"), "all")[0]


NORM_AND_MLP = ["LigerRMSNorm", "LigerSwiGLUMLP"]


@pytest.mark.parametrize(("choice", "kernels"), [("all", [*NORM_AND_MLP, "liger_rotary_pos_emb"]), (1, NORM_AND_MLP)])
def test_policy_and_reference_compute_the_same_step(
    choice: Any, kernels: list[str], plain: Step, tmp_path: Path
) -> None:
    (losses, gradient), names = step(tmp_path, choice, with_recompute(choice))
    assert names == kernels
    assert losses == pytest.approx(plain[0], rel=1e-5)
    assert relative(gradient, plain[1]) < 1e-5


def test_the_rotary_kernel_under_selective_recomputation_would_be_a_wrong_gradient(plain: Step, tmp_path: Path) -> None:
    """Why it stays out there."""
    (losses, gradient), _ = step(tmp_path, "none", with_recompute("all"))
    assert losses == pytest.approx(plain[0], rel=1e-5)
    assert relative(gradient, plain[1]) > 1e-2


@pytest.mark.parametrize("activation", ["gelu", None])
def test_an_activation_that_liger_does_not_compute_stays(
    activation: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: a config without this key, such as Gemma 2's."""
    recorded, recipe = Recorded(), with_recompute("all")
    trainer = fixed_trainer(recipe, tmp_path, recorded.prompt_ids, [])
    if activation is None:
        del trainer.model.config.hidden_act
        monkeypatch.delattr(modeling_qwen2.Qwen2Config, "hidden_act")
    else:
        trainer.model.config.hidden_act = activation
    assert use(trainer, recipe, tmp_path) == ["LigerRMSNorm", "liger_rotary_pos_emb"]


def test_which_recipes_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load("exp3-plus").hardware.fused_kernels
    assert not load("exp3").hardware.fused_kernels
    own = ["model.name=.", "data.source=x.jsonl"]
    assert load("own", [*own, "hardware.gpus=1"]).hardware.fused_kernels
    assert not load("own", [*own, "hardware.gpus=0"]).hardware.fused_kernels
    assert ("hardware.fused_kernels", False, True) in diff(load("exp3"), load("exp3-plus"))
    with pytest.raises(UserError, match=r"hardware.fused_kernels are kernels for a GPU, but hardware.gpus is 0"):
        load("demo", ["hardware.fused_kernels=true"])
    monkeypatch.setattr(launch, "find_spec", lambda name: None if name == "liger_kernel" else name)
    monkeypatch.setattr("openrs.doctor.doctor.require_gpus", lambda *_: None)
    with pytest.raises(UserError, match="liger-kernel is not installed here"):
        launch.check_machine(load("exp3-plus"), "exp3-plus")
