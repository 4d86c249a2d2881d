"""openrs's trainer on this device against the tensors recorded from the paper's trainer, in float32 and bfloat16.

    python benchmarks/gpu_parity.py [--cpu] [--json FILE]

The recording (tests/training/parity: TRL at 69ad852, a tiny Qwen2, two groups of six) was made on a CPU in float32.
Same completions, same rewards: loss of each micro-batch and the accumulated gradient are compared.
"""

import sys
import tempfile
from pathlib import Path

import common

sys.path.insert(0, str(common.ROOT / "tests" / "training"))

import torch
from fixed import GROUP, Recorded, fixed_trainer, losses_and_gradient, parity_recipe, relative

# Of losses near 0.1 and of a gradient's norm. float32: another order of sums. bfloat16: 8 bits a value, as in gpu_step.
TOLERANCE = {"float32": (1e-4, 1e-4), "bfloat16": (0.05, 0.15)}


def main() -> int:
    parser = common.arguments(__doc__)
    parser.add_argument("--cpu", action="store_true", help="leave the GPU alone")
    args = parser.parse_args()
    gpu = torch.cuda.is_available() and not args.cpu
    recorded, rows, wrong = Recorded(), [["type", "loss", "gradient", "check"]], []
    for dtype, (loss_limit, gradient_limit) in TOLERANCE.items():
        recipe = parity_recipe(
            f"hardware.gpus={int(gpu)}", f"grpo.bf16={str(dtype == 'bfloat16').lower()}", f"model.dtype={dtype}"
        )
        with tempfile.TemporaryDirectory() as folder:
            trainer = fixed_trainer(recipe, Path(folder), recorded.prompt_ids, recorded.rewards.flatten().tolist())
            trainer.give(recorded.completion_ids)
            losses, gradient = losses_and_gradient(trainer, [f"p{i // GROUP}" for i in range(2 * GROUP)])
        off = max(abs(a - b) / max(abs(b), 0.1) for a, b in zip(losses, recorded.loss.tolist(), strict=True))
        apart = relative({name: value.float().cpu() for name, value in gradient.items()}, recorded.gradient)
        right = off <= loss_limit and apart <= gradient_limit
        rows.append([dtype, off, apart, "ok" if right else "not the same update"])
        if not right:
            wrong.append(f"{dtype}: loss {off:.1e}, gradient {apart:.1e} apart")
    device = torch.cuda.get_device_name() if gpu else "CPU"
    common.finish("gpu_parity", args.json, {}, rows, device=device, wrong=wrong)
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
