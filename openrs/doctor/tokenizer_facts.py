"""A program for checks_cache.py: whether a folder's loaded tokenizer agrees with tokenizer.json, as `openrs:...`."""

import sys
from pathlib import Path

from openrs.data.tokenizer import check_tokenizer, load_tokenizer
from openrs.errors import UserError


def main(folder: Path) -> None:
    try:
        facts = check_tokenizer(load_tokenizer(folder), folder)
    except UserError as error:
        sys.exit("openrs:" + error.what)
    text = f"{facts.tokens:,} tokens, ids as in tokenizer.json, round trip, {facts.bos_added} BOS"
    print(f"openrs:{text}")  # noqa: T201 - read by checks_cache.py


if __name__ == "__main__":
    main(Path(sys.argv[1]))
