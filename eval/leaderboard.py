"""Committed results, receipts and claims to one static page and one table per protocol.

python eval/leaderboard.py eval/results --out outputs/leaderboard
"""

import argparse
import sys
from pathlib import Path

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.leaderboard import collect, receipt_table
from tokenizers_vq.evaluation.leaderboard_page import leaderboard_page
from tokenizers_vq.files import write_atomically

HERE = Path(__file__).resolve().parent


def main(argv: list[str] | None = None) -> int:
    """Write ``leaderboard.md`` and ``leaderboard.html``; exit code 2 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=HERE / "results")
    parser.add_argument("--claimed", type=Path, default=HERE / "claimed.json")
    parser.add_argument("--out", type=Path, default=Path("outputs/leaderboard"))
    options = parser.parse_args(argv)
    try:
        board = collect(options.folder, options.claimed)
        tables = [
            f"## {group[0]['protocol']['name']}, {group[0]['data']['name']}\n\n"
            + results.results_table(group)
            for group in board.groups
        ]
        page = leaderboard_page(board)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if board.receipts:
        tables.append("## Receipts\n\n" + receipt_table(board.receipts))
    text = "\n\n".join(["# Leaderboard", *tables])
    write_atomically(options.out / "leaderboard.md", text + "\n")
    write_atomically(options.out / "leaderboard.html", page)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
