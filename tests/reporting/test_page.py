"""A page of every kind of section needs no network and no JavaScript, and any text is safe."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from html_page import Page
from tests.reporting import gallery

from featherweight.reporting import (
    Bar,
    Bars,
    Chapter,
    Column,
    Sample,
    Samples,
    Table,
    Text,
    Unit,
    render,
    write_page,
)


@pytest.fixture(scope="module")
def html() -> str:
    return gallery.page()


def test_every_picture_has_its_numbers_as_a_table(html):
    page = Page(html)
    num_pictures = page.tags.count("figure")
    assert num_pictures == 7
    assert page.tags.count("table") == num_pictures + 1
    assert page.tags.count("caption") == page.tags.count("table")
    # The numbers of stacked bars are their legend, so they are not folded.
    assert page.tags.count("details") == num_pictures - 1
    assert "0.6648" not in page.text and "0.665" in page.text


def test_ids_are_unique_and_labels_name_them(html):
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    labels = [value for _, name, value in page.attributes if name == "aria-labelledby"]
    assert all(identity in page.ids for label in labels for identity in label.split())
    images = [value for _, name, value in page.attributes if (name, value) == ("role", "img")]
    assert len(images) == 8  # seven pictures and one scale of colours


def test_nothing_is_fetched_and_only_the_own_script_may_run(html):
    page = Page(html)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "action", "srcset", "data", "xlink:href"):
            assert value.startswith("#") or value == "data:,", (tag, name, value)
        assert not name.startswith("on"), (tag, name)
    assert "url(" not in html and "@import" not in html
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html and "default-src 'none'" in html


def test_the_head_counts_the_warnings_and_links_to_them(html):
    page = Page(html)
    assert "2 warnings about this run" in page.text
    (link,) = re.findall(r'class="notice"><a href="#([^"]+)"', html)
    assert link in page.ids
    assert "warnings about" not in Page(render("t", "v", [Text("Words", "None.")])).text


def test_a_section_outside_of_a_chapter_has_its_title_as_heading():
    page = Page(render("t", "v", [gallery.runs(), Chapter("Together", [gallery.runs()])]))
    assert page.tags.count("h2") == 2
    assert (
        page.text.count("All runs") == 3
    )  # heading and hidden caption, and the caption in the chapter
    assert Page(render("t", "v", [])).tags.count("section") == 0


def test_backticks_mark_code_and_nothing_else_is_interpreted():
    html = render("`t`", "v", [Text("a", "see `fw <x>` & *more*", paragraphs=["lone ` tick"])])
    assert "see <code>fw &lt;x&gt;</code> &amp; *more*" in html
    assert "<h1>`t`</h1>" in html and "lone ` tick" in html


def test_any_text_stays_text():
    evil = "</title></style></svg><script>x()</script>\x00\x1b\ud800\"'><svg onload=x()>`"
    sections = [
        Chapter(evil, [Text(evil, evil, [evil], facts=[(evil, evil)], code=evil, warnings=[evil])]),
        Table(evil, [Column(evil), Column(evil, Unit())], [[evil, evil]], evil),
        Bars(evil, [Bar(evil, 1.0)], noun=evil, interval_name=evil),
        Samples(evil, (evil, evil), [Sample(evil, [evil, evil])]),
    ]
    html = render(evil, evil, sections, subtitle=evil, eyebrow=evil, footer=evil, window_title=evil)
    page = Page(html)
    assert page.tags.count("script") == 1
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert "\x00" not in html and "\x1b" not in html
    html.encode("utf-8")


def test_a_page_is_written_whole_to_a_file_or_into_a_folder(tmp_path):
    path = write_page("<p>ä</p>", tmp_path / "deeper" / "here")
    assert path == tmp_path / "deeper" / "here" / "report.html"
    assert write_page("<p>ä</p>", tmp_path / "other.html").read_text(encoding="utf-8") == "<p>ä</p>"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["deeper", "other.html"]


def test_a_short_table_is_not_folded():
    folds = ("table", "data-first-rows", "10")
    assert folds in Page(render("t", "v", [gallery.runs(30)])).attributes
    assert folds not in Page(render("t", "v", [gallery.runs(15)])).attributes


def test_missing_cells_are_dashes_and_sort_keys_are_exact():
    table = Table("t", [Column("a"), Column("b", Unit())], [["x", None], [None, 0.123456789]])
    html = render("t", "v", [table])
    assert 'data-value="0.123456789"' in html and 'data-value=""' in html
    assert Page(html).text.count("–") == 2


@pytest.fixture(scope="module")
def browser_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[object, Path]]:
    pytest.importorskip("websockets", reason="the extra `test` is not installed")
    import chromium

    if chromium.find() is None:
        pytest.skip("there is no Chromium")
    folder = tmp_path_factory.mktemp("page")
    path = write_page(gallery.page(), folder / "gallery.html")
    with chromium.browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab, path


def test_the_script_sorts_and_folds(browser_page):
    tab, path = browser_page
    tab.complaints.clear()
    tab.open(path.as_uri())
    rows = "[...document.querySelectorAll('#all-runs-content tbody tr')]"
    visible = f"{rows}.filter(row => !row.hidden).map(row => row.cells[0].textContent)"
    press = "document.querySelectorAll('#all-runs-content thead button')"
    assert tab.run(f"{visible}.length") == 10
    tab.run(f"{press}[1].click()")
    assert tab.run(f"{visible}[0]") == "layers.3"  # the largest error
    tab.run(f"{press}[1].click()")
    assert tab.run(f"{visible}[0]") == "layers.11"
    tab.run("document.querySelector('.more').click()")
    assert tab.run(f"{visible}.length") == 30
    tab.run(f"{press}[0].click()")
    assert tab.run(f"{visible}.slice(0, 3)") == ["layers.0", "layers.1", "layers.2"]
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("width", [320, 390, 800, 1280, 1920])
def test_a_page_is_never_wider_than_the_window(browser_page, width):
    tab, path = browser_page
    tab.look(width, 900)
    tab.open(path.as_uri())
    assert tab.run("document.documentElement.scrollWidth") <= width
    heights = (
        "[...document.querySelectorAll('.drawing .label')].map(t => getComputedStyle(t).fontSize)"
    )
    assert set(tab.run(heights)) == {"12px", "13px"}
