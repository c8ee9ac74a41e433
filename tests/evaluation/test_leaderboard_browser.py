"""The leaderboard clicked in Chromium: ``pytest -m browser``, see CONTRIBUTING.md."""

import copy
import os
from pathlib import Path

import pytest
from reference.webdriver import browser

from tokenizers_vq.evaluation.leaderboard import collect
from tokenizers_vq.evaluation.leaderboard_page import leaderboard_page
from tokenizers_vq.evaluation.results import read_result, write_json

pytestmark = pytest.mark.browser
RESULT = Path(__file__).resolve().parents[2] / "eval/results/mini_cnn2d_f16_ecsq.photos"
NAMES = "[...document.querySelectorAll('#g0 tbody tr:not([hidden]) td:first-child')]"
TEXTS = f"return {NAMES}.map(one => one.textContent)"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Three results of one protocol, of which one has no PSNR."""
    folder = tmp_path_factory.mktemp("board")
    result = read_result(RESULT / "image_fast_wheels" / "result.json")
    for name, psnr in {"alpha": 9.5, "beta": 24.0, "gamma": None}.items():
        one = copy.deepcopy(result)
        one["tokenizer"] |= {"name": name, "sha256": name * 8}
        one["metrics"]["psnr"]["value"] = psnr
        write_json(folder / "results" / name / "result.json", one)
    path = folder / "leaderboard.html"
    path.write_text(leaderboard_page(collect(folder / "results")))
    return path


@pytest.mark.parametrize("width", [1280, 390])
def test_sorting_filtering_and_links_work_when_clicked(page, tmp_path, width):
    with browser(tmp_path, width, 900) as window:
        window.open(page)
        heads = window.run("return [...document.querySelectorAll('#g0 th')].map(t => t.innerText)")
        place = heads.index("PSNR dB")
        window.click("#g0 th button", place)
        assert window.run(TEXTS) == ["beta", "alpha", "gamma"]
        window.click("#g0 th button", place)
        assert window.run(TEXTS) == ["alpha", "beta", "gamma"]
        window.click("#g0 th button", 0)
        assert window.run(TEXTS) == ["gamma", "beta", "alpha"]
        window.type("#filter", "BETA wheels")
        assert window.run(TEXTS) == ["beta"]
        assert window.run("return document.getElementById('left').textContent") == "1 row"
        window.click("#g0 tbody tr:not([hidden]) td a", 0)
        shown = "const e = document.querySelector(decodeURIComponent(location.hash)); return e.open"
        assert window.run(shown)
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert window.run(wide) == 0
        if os.environ.get("TVQ_SCREENSHOTS"):
            window.run("scrollTo(0, 0)")
            place = Path(os.environ["TVQ_SCREENSHOTS"]) / f"leaderboard_{width}.png"
            place.write_bytes(window.picture())
