"""Draw one photo per row at growing numbers of tokens, of a tokenizer that decodes any prefix.

python eval/token_picture.py <tokenizer> docs/images/tokens.png --tokens 8 16 32 64 128
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import tokenizers_vq
from tokenizers_vq.bitstream import to_bytes
from tokenizers_vq.data.transforms import to_uint8
from tokenizers_vq.data.wheels import WheelPhotos
from tokenizers_vq.tokenizer import Tokenizer
from tokenizers_vq.viz import side_by_side


@torch.no_grad()
def row(tok: Tokenizer, name: str, x: torch.Tensor, counts: list[int]) -> np.ndarray:
    """Return one photo as ``(H, W, 3)``: original, then each number of tokens, bytes and PSNR."""
    pictures = {name: _pixels(x)}
    for count in counts:
        codes = tok.encode(x, num_tokens=count)
        y = tok.decode(codes)
        psnr = float(10 * torch.log10(4 / (x - y).square().mean()))
        size = len(to_bytes(codes, tok.prior))
        pictures[f"{count} tokens, {size} bytes, {psnr:.1f} dB"] = _pixels(y)
    return np.asarray(side_by_side(pictures))


def _pixels(x: torch.Tensor) -> np.ndarray:
    return to_uint8(x[0]).permute(1, 2, 0).numpy()


def main() -> None:
    """Write the picture of the photos that installed packages hold and nobody trained on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", help="name or folder")
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--side", type=int, default=256, help="of the photos")
    options = parser.parse_args()
    tok = tokenizers_vq.load(options.tokenizer)
    photos = WheelPhotos("heldout", size=options.side)
    rows = [row(tok, name, photos[i][None], options.tokens) for i, name in enumerate(photos.ids)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
