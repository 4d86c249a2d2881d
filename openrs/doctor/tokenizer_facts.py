"""A program for checks_cache.py: whether a folder's loaded tokenizer agrees with tokenizer.json, as `openrs:...`."""

import sys
from pathlib import Path

from openrs.data.tokenizer import check_tokenizer, load_tokenizer
from openrs.errors import UserError


def main(folder: Path) -> None:
    try:
        tokenizer = load_tokenizer(folder)
        bos = check_tokenizer(tokenizer, folder)
    except UserError as error:
        sys.exit("openrs:" + error.what)
    text = f"{len(tokenizer):,} tokens, ids as in tokenizer.json, round trip, {bos} BOS"
    print(f"openrs:{text}")  # noqa: T201 - read by checks_cache.py


if __name__ == "__main__":
    main(Path(sys.argv[1]))
