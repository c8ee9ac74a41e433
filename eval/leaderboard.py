"""Committed results to one table and one page per protocol and data set; they are never mixed.

python eval/leaderboard.py eval/results --out outputs/leaderboard
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

from tokenizers_vq import results
from tokenizers_vq.errors import ConfigError
from tokenizers_vq.files import write_atomically
from tokenizers_vq.page import html_table, standalone


def collect(folder: Path) -> dict[tuple[str, str], list[dict]]:
    """Return the results below a folder, grouped by what makes them comparable."""
    groups = defaultdict(list)
    for path in sorted(folder.rglob("*.json")):
        result = results.read_result(path)
        protocol = f"{result['protocol']['name']}@{result['protocol']['hash']}"
        groups[protocol, f"{result['data']['name']}, {result['data']['n']} pictures"].append(result)
    return dict(groups)


def main(argv: list[str] | None = None) -> int:
    """Write ``leaderboard.md`` and ``leaderboard.html``; exit code 2 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("eval/results"))
    parser.add_argument("--out", type=Path, default=Path("outputs/leaderboard"))
    options = parser.parse_args(argv)
    try:
        groups = collect(options.folder)
        if not groups:
            raise ConfigError(
                f"leaderboard: expected result files in '{options.folder}'; got none. "
                "Run eval/run.py with keep=eval/results/NAME/PROTOCOL.json."
            )
        tables = {key: results.results_table(group) for key, group in groups.items()}
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    text = "\n\n".join(f"## {p}\n\n{data}\n\n{t}" for (p, data), t in tables.items())
    page = "".join(
        f"<h2>{p}</h2><p>{data}</p>{html_table(t.rsplit(chr(10) * 2, 1)[0])}"
        f"<p>{t.rsplit(chr(10) * 2, 1)[1]}</p>"
        for (p, data), t in tables.items()
    )
    write_atomically(options.out / "leaderboard.md", f"# Leaderboard\n\n{text}\n")
    write_atomically(
        options.out / "leaderboard.html", standalone(f"<h1>Leaderboard</h1>{page}", "Leaderboard")
    )
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
