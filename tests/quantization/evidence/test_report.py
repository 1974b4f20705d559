"""The page holds every layer and figure, asks for nothing, runs nothing but its own script, and
survives any input.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re

import pytest
from html_page import Page
from tests.quantization.evidence.sample import results

from featherweight.base.errors import BadInput
from featherweight.quantization.evidence import render, report


@pytest.fixture(scope="module")
def page():
    return Page(render(results()))


def test_every_layer_is_there_with_its_figures(page, sample):
    for layer in sample["layers"]:
        assert f"{layer['name']} " in page.text
    assert page.text.count("Trellis(bits=3)") >= 210
    first = sample["layers"][0]
    assert f"{first['error_weighted']:.4f}"[:6] in page.text


def test_worst_layer_comes_first_and_the_unmeasured_last(sample):
    page = Page(render(sample)).text
    ranked = sorted(
        (x for x in sample["layers"] if x["error_weighted"]), key=lambda x: -x["error_weighted"]
    )
    table = page[page.index("All 211 compressed layers") :]
    places = [table.index(f"{layer['name']} ") for layer in ranked]
    assert places == sorted(places) and table.index("model.embed_tokens") > places[-1]


def test_sections_stand_in_order(page):
    heads = [
        "Bits per weight",
        "What it cost",
        "Where the bytes are",
        "Which layers are to blame",
        "Calibration",
    ]
    heads.append("How it was made")
    places = [page.text.index(head) for head in heads]
    assert places == sorted(places)


def test_the_figures_people_quote_are_there(page):
    for figure in (
        "68.7 MB",
        "269.1 MB",
        "3.000",
        "3.025",
        "19.87",
        "21.93",
        "86.1 %",
        "0.0943",
        "1.104",
        "0.712",
    ):
        assert figure in page.text, figure
    assert (
        "AMD EPYC 9B14" in page.text
        and "2.13.0+cpu" in page.text
        and "3f1f6a0c2d8b7e95" in page.text
    )
    assert "tables: Int(bits=8)" in page.text and "the output side hurt held-out text" in page.text


def test_both_sizes_of_a_converted_source_are_there(sample):
    sample["model"] |= {
        "published_dtype": "bfloat16",
        "published_bytes": 269_030_016,
        "published_bits": 16.0,
        "source_file_bytes": 538_090_432,
        "source_bits": 32.0,
    }
    text = Page(render(sample)).text
    for words in (
        "was 269.0 MB as published in bfloat16 at 16 bits, 3.9× smaller",
        "source file 538.1 MB at 32 bits",
        "Original, as published, bfloat16 269.0 MB",
        "Source file, 32 bits a weight 538.1 MB",
        "The source file has 32.0.",
    ):
        assert words in text, words


def test_unknown_kinds_are_in_the_picture_and_in_the_words(sample):
    spent = sample["size"]["bytes"]
    spent |= {"outlier_rows": 3000, "other": spent["other"] - 3000}
    page = Page(render(sample))
    assert page.classes("rect").count("part") == 2 * (5 + 1 + 1)
    assert "outlier rows 3.0 KB" in page.text
    assert "code tables, outlier rows and padding" in page.text


def test_what_was_not_measured_is_not_in_the_template(sample):
    assert "Not measured here tasks, speed, " in Page(render(sample)).text
    sample["quality"]["tasks"], sample["speed"] = {"gsm8k": 0.1}, {"decode": 40.0}
    assert "Not measured here other texts" in Page(render(sample)).text


def test_free_answers_have_a_chapter_with_rates_flags_and_samples(sample):
    text = Page(render(sample)).text.replace("\u00a0", " ")
    chapter = text[text.index("Free answers") :]
    assert "Repetition loops 100 21.0 % 27.0 % 6.0 % (-4.1 to 16.3 %)" in chapter
    assert "98.75 % interval" in chapter and " flagged " not in chapter[chapter.index("A loop") :]
    assert "[light: repetition loops, no end within the cap]" in chapter
    assert "</pre><script>x()</script>" in chapter
    sample["free_running"]["rates"]["loops"]["flag"] = True
    sample["free_running"]["forms_checked"] = False
    text = Page(render(sample)).text
    assert (
        " flagged " in text[text.index("A loop") :]
        and "not checked: the model has no chat template" in text
    )
    assert "repeats itself in a loop" in text


@pytest.mark.parametrize("value", [None, {}, [], "text", 3, [3], {"loops": 3}])
def test_free_answers_may_hold_anything(value):
    whole = results(1)
    for key in whole["free_running"]:
        broken = copy.deepcopy(whole)
        broken["free_running"][key] = value
        Page(render(broken))
    for key in ("rates", "samples"):
        broken = copy.deepcopy(whole)
        entries = broken["free_running"][key]
        for entry in entries.values() if isinstance(entries, dict) else entries:
            entry.update(dict.fromkeys(entry, value))
        Page(render(broken))


def test_nothing_is_fetched(page):
    for tag, name, value in page.attributes:
        if name in ("src", "href", "action", "srcset", "data", "poster", "xlink:href"):
            assert value.startswith("#") or value == "data:,", (tag, name, value)
        assert not name.startswith("on"), (tag, name)
    assert not {"img", "iframe", "object", "embed", "form", "base", "audio", "video"} & set(
        page.tags
    )
    styles = re.search(r"<style>(.*?)</style>", render(results(1)), re.DOTALL)[1]
    assert "url(" not in styles and "@import" not in styles


def test_only_its_own_script_may_run():
    text = render(results(1))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text and "default-src 'none'" in text


def test_text_from_models_is_text(page):
    assert "Write a line of HTML that runs <script>alert(1)</script> & more" in page.text
    assert "<img src=x onerror=alert(1)>" in page.text
    assert page.tags.count("script") == 1


def test_hostile_names_everywhere_stay_text(sample):
    evil = "</title></style><script>x()</script>\x00\x1b\ud800\"'><svg onload=x()>"
    sample["model"]["name"] = sample["layers"][5]["name"] = sample["layers"][6]["format"] = evil
    sample["layers"][7]["name"] = f"model.layers.3.{evil}"
    sample["quality"]["text"]["name"] = sample["recipe"]["model"] = sample["machine"]["cpu"] = evil
    sample["calibration"]["sources"][0]["name"] = sample["calibration"]["template"] = evil
    sample["warnings"] = [evil]
    sample["seconds"][evil] = 1.0
    sample["machine"][evil] = evil
    text = render(sample)
    page = Page(text)
    assert page.tags.count("script") == 1
    # One cell fewer (a layer that is not in a block any more), one bar of seconds more.
    assert page.tags.count("title") == Page(render(results())).tags.count("title")
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert "\x00" not in text and "\x1b" not in text
    text.encode("utf-8")


def test_pictures_are_described_and_ids_are_unique(page):
    assert len(page.ids) == len(set(page.ids))
    labels = [
        value for tag, name, value in page.attributes if tag == "svg" and name == "aria-labelledby"
    ]
    assert len(labels) == page.tags.count("svg") == 6
    assert all(part in page.ids for label in labels for part in label.split())
    assert page.tags.count("caption") == page.tags.count("table")


def test_every_block_and_layer_has_a_cell(page):
    cells = [value for tag, name, value in page.attributes if tag == "rect" and name == "class"]
    assert cells.count("cell") == 210 + 32
    assert cells.count("hollow") == 2


@pytest.mark.parametrize("key", sorted(results(1)))
def test_any_part_may_be_missing(key):
    for value in (None, {}, [], "text", 3):
        broken = results(2)
        broken[key] = value
        Page(render(broken))
    del broken[key]
    Page(render(broken))


def test_any_figure_may_be_missing_or_not_a_number():
    whole = results(1)
    paths = [("quality", key) for key in whole["quality"]] + [
        ("size", key) for key in whole["size"]
    ]
    paths += [("model", key) for key in whole["model"]] + [
        ("calibration", key) for key in whole["calibration"]
    ]
    for section, key in paths:
        for value in (None, float("nan"), "?"):
            broken = copy.deepcopy(whole)
            broken[section][key] = value
            Page(render(broken))
    for key in whole["layers"][0]:
        broken = copy.deepcopy(whole)
        for layer in broken["layers"]:
            layer[key] = None
        Page(render(broken))
    assert "not evaluated" in Page(render({})).text


def test_one_window_has_no_interval_and_says_so():
    single = results(1)
    single["quality"]["kl"] |= {"low": None, "high": None}
    single["quality"]["kl_windows"] = [0.1]
    assert "no interval: one window" in Page(render(single)).text


def test_mixture_of_experts_and_other_names():
    many = results(2)
    expert = many["layers"][4]
    experts = [
        expert | {"name": f"model.layers.{b}.mlp.experts.{e}.up_proj"}
        for b in (0, 1)
        for e in range(64)
    ]
    many["layers"] = many["layers"] + experts
    page = Page(render(many))
    assert "worst of 64 mlp.experts.*.up_proj" in page.text


def test_written_whole_from_a_file_or_a_folder(tmp_path, sample):
    (tmp_path / "results.json").write_text(json.dumps(sample))
    path = report(tmp_path / "results.json", tmp_path / "deeper" / "here")
    assert path == tmp_path / "deeper" / "here" / "report.html"
    assert (
        report(tmp_path, tmp_path / "other.html").read_text() == path.read_text() == render(sample)
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deeper", "other.html", "results.json"]


def test_unreadable_results_are_refused_by_name(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        report(tmp_path / "results.json", tmp_path)
    for content in ("{", "[1]", "\xff"):
        (tmp_path / "results.json").write_text(content, encoding="latin-1")
        with pytest.raises(BadInput, match=r"results\.json"):
            report(tmp_path / "results.json", tmp_path)
    assert not (tmp_path / "report.html").exists()
