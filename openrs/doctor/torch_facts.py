"""A program for checks_cache.py: what torch sees here, as one line `openrs:{...}`. It may die of a broken CUDA."""

import json


def main() -> None:
    import torch

    cuda = torch.cuda.is_available()
    facts = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "gpus": torch.cuda.device_count() if cuda else 0,
    }
    if cuda:
        facts["bf16"] = torch.cuda.is_bf16_supported()
        facts["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        for number in range(facts["gpus"]):
            ones = torch.ones(256, 256, device=f"cuda:{number}", dtype=torch.bfloat16)
            if (ones @ ones)[0, 0].item() != 256:
                raise SystemExit(f"a product on cuda:{number} is wrong")
    print("openrs:" + json.dumps(facts))  # noqa: T201 - read by checks_cache.py


if __name__ == "__main__":
    main()
