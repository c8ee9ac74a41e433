import re

import numpy as np
import pytest
from reference.patch_mean import PROTOCOL, PatchMean, Pictures

from tokenizers_vq.errors import DataError
from tokenizers_vq.evaluation.entry import evaluate
from tokenizers_vq.evaluation.report import Sample, load_samples, read_history, write_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    evaluate(PatchMean(), Pictures(), PROTOCOL, folder)
    (folder / "metrics.csv").write_text("step,train/loss,val/psnr\n0,2.0,\n10,1.0,20.5\n")
    return folder


def test_the_page_needs_no_other_file(folder):
    path = write_report(folder, history=read_history(folder), note="A note & more.")
    page = path.read_text()
    assert path == folder / "report.html"
    assert len(page) < 5_000_000
    assert "A note &amp; more." in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "<script" not in page
    assert page.count("<article") == 3
    assert page.count("data:image/webp") == 3 * (3 + 2)  # three views and two codecs each
    assert page.count('class="cells"') == 3
    for words in ("Rate and distortion", "Codebook", "Training", "Protocol test@", "dead codes"):
        assert words in page


def test_samples_come_back_from_the_folder(folder):
    samples = load_samples(folder)
    assert [sample.id for sample in samples] == ["p/0", "p/1", "p/2"]
    assert samples[0].tokens.shape == (8, 8, 1)
    assert list(samples[0].codecs) == ["jpeg", "webp"]
    assert samples[0].scores["psnr"] > 0


def test_history_reads_every_curve_and_skips_gaps(folder, tmp_path):
    assert read_history(folder) == {
        "train/loss": [(0.0, 2.0), (10.0, 1.0)],
        "val/psnr": [(10.0, 20.5)],
    }
    assert read_history(tmp_path) == {}


def test_a_page_too_large_leaves_pictures_out_and_says_so(folder, monkeypatch):
    from tokenizers_vq.evaluation import report

    monkeypatch.setattr(report, "LIMIT", 60_000)
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (128, 128, 3), dtype=np.uint8) for _ in range(6)]
    samples = [Sample(str(k), image, image) for k, image in enumerate(noise)]
    page = write_report(folder, samples=samples).read_text()
    assert len(page) < 60_000
    left = int(re.search(r"(\d) more pictures are left out", page).group(1))
    assert left == 6 - page.count("<article") > 0


def test_without_pictures_there_is_no_report(folder):
    with pytest.raises(DataError) as caught:
        write_report(folder, samples=[])
    assert str(caught.value) == (
        f"write_report: expected pictures in '{folder}'; got none. Evaluate first."
    )
