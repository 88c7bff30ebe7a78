"""The report: one file that needs nothing else, and the numbers beside it."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from sparsegen.study import Finished, write_report
from sparsegen.study.figures import Histogram, as_svg, histograms
from sparsegen.study.tables import caveats


class Page(HTMLParser):
    """Collects what a page refers to, its text, and whether its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def written(finished: Finished) -> Path:
    return write_report(finished)


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written.read_text(encoding="utf-8"))


def test_the_page_needs_nothing_from_outside_and_runs_nothing(page: Page) -> None:
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.open == []


def test_the_page_has_the_table_the_pictures_and_the_curves(page: Page) -> None:
    text = " ".join(page.words)
    for part in ("Comparison", "Distributions", "Mean images", "Single events", "Training", "How it was made"):
        assert part in text
    assert page.tags.count("img") >= 5
    assert "real against real" in text
    assert "diverged" in text
    assert "one seed: illustrative" in text


def test_titles_are_escaped(page: Page) -> None:
    assert "Toys & <jets>" in page.words


def test_csv_and_json_agree(written: Path) -> None:
    rows = list(csv.DictReader((written.parent / "results.csv").read_text().splitlines()))
    summary = json.loads((written.parent / "results.json").read_text())
    mass = next(row for row in rows if row["run"] == "vae-dense-s1" and row["metric"] == "w1_mass")
    group = next(group for group in summary["groups"] if group["model"] == "vae")
    assert float(mass["value"]) == pytest.approx(group["w1_mass"]["value"], rel=1e-6)
    assert summary["runs"]["gan-dense-s1"]["status"] == "diverged"
    assert summary["runs"]["gan-dense-s1"]["results"] == []


def test_the_report_is_the_same_when_written_again(finished: Finished, written: Path) -> None:
    first = written.read_bytes()
    assert write_report(finished).read_bytes() == first


def test_one_seed_is_called_illustrative_and_the_diverged_run_named(finished: Finished) -> None:
    lines = caveats(finished)
    assert lines[0].startswith("one seed: illustrative")
    assert any("dense GAN (diverged)" in line for line in lines)


def test_it_is_said_who_draws_the_number_of_hits_from_the_training_set(finished: Finished) -> None:
    (line,) = [line for line in caveats(finished) if "drawn from the training set, not learned" in line]
    assert "independent" in line
    assert "VAE" not in line


def test_histograms_take_values_outside_the_bins_and_none_at_all() -> None:
    real = np.random.default_rng(0).normal(size=500)
    far = [Histogram("far", np.full(10, 1e6), "#000000"), Histogram("none", np.array([]), "#ff0000")]
    assert as_svg(histograms({"x": (real, far), "n": (np.round(real * 5), far)})).startswith(
        "data:image/svg+xml;base64,"
    )
