"""Rate-distortion of JPEG, WebP and AVIF on a folder of pictures, at exact file sizes.

python eval/compare_codecs.py --data wheels --bytes 320 768 1024 2048 4096 --out outputs/codecs
"""

import argparse
import statistics
import sys
from pathlib import Path

from tokenizers_vq import viz
from tokenizers_vq.errors import ConfigError, DataError, MissingExtraError
from tokenizers_vq.evaluation import image_codecs as codecs
from tokenizers_vq.evaluation import results
from tokenizers_vq.evaluation.baselines import pixels_of
from tokenizers_vq.evaluation.entry import dataset_from
from tokenizers_vq.evaluation.protocol import Protocol, uint8_tensor
from tokenizers_vq.files import write_atomically
from tokenizers_vq.metrics.similarity import psnr, ssim
from tokenizers_vq.page import standalone


def measure(pictures: list, codec: str, budgets: list[int]) -> list[dict]:
    """Return one row per budget and rule: mean bytes, PSNR, SSIM, files over budget."""
    from PIL import Image

    requests = [codecs.Request(pixels_of(one), tuple(budgets)) for one in pictures]
    tables = codecs.encode_many(requests, codec)
    rows = []
    for place, budget in enumerate(budgets):
        coded = [table["best_scale"][place] for table in tables]
        decoded = [uint8_tensor(Image.fromarray(one.image)) for one in coded]
        pairs = list(zip(pictures, decoded, strict=True))
        rows.append({
            "codec": codec,
            "budget": budget,
            "n_bytes": statistics.fmean(one.n_bytes for one in coded),
            "over_budget": sum(not one.fits for one in coded),
            "psnr": statistics.fmean(float(psnr(a[None], b[None])) for a, b in pairs),
            "ssim": statistics.fmean(float(ssim(a[None], b[None])) for a, b in pairs),
            "scale": statistics.fmean(one.scale for one in coded),
        })  # fmt: skip
    return rows


def table(rows: list[dict]) -> str:
    """Return the rows as Markdown."""
    lines = ["| codec | budget | bytes | over | PSNR dB | SSIM | mean scale |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    lines += [
        f"| {results.codec_label(row['codec'])} | {row['budget']:,} | {row['n_bytes']:,.0f} | "
        f"{row['over_budget']} | {row['psnr']:.2f} | {row['ssim']:.4f} | {row['scale']:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure, write ``codecs.json`` and ``codecs.html``, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="wheels", help="folder, or a name in conf/data")
    parser.add_argument("--size", type=int, default=256, help="side of the centre square, px")
    parser.add_argument("--bytes", type=int, nargs="+", default=[320, 512, 768, 1024, 2048, 4096])
    parser.add_argument("--codecs", nargs="+", default=list(codecs.CODECS))
    parser.add_argument("--out", type=Path, default=Path("outputs/codecs"))
    options = parser.parse_args(argv)
    try:
        dataset, name = dataset_from(options.data)
        protocol = Protocol("codecs", size=options.size)
        pictures = [protocol.prepare(dataset[index]) for index in range(len(dataset.ids))]
        rows = [row for c in options.codecs for row in measure(pictures, c, options.bytes)]
    except (ConfigError, DataError, MissingExtraError) as error:
        print(error, file=sys.stderr)
        return 2
    note = {"data": name, "sha256": dataset.sha256(), "n": len(pictures), "size": options.size}
    results.write_json(options.out / "codecs.json", {**note, "rows": rows})
    series = []
    for codec in options.codecs:
        points = [(row["n_bytes"], row["psnr"]) for row in rows if row["codec"] == codec]
        series.append(viz.Series(results.codec_label(codec), sorted(points)))
    chart = viz.line_chart(series, "bytes per picture", "PSNR, dB", log_x=True)
    write_atomically(
        options.out / "codecs.html", standalone(f"<h1>Codecs on {name}</h1>{chart}", "Codecs")
    )
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
