"""The page in a real browser (Debian's chromium, headless, from file://): whole, quiet, safe, good on a phone."""

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Chromium, binary
from made_run import made_run, verdicts, write_scores

from openrs.report.pages.page import report_on, write_report
from openrs.run.directory import Run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(binary() is None, reason="chromium is not here (apt-get install chromium)"),
]

ATTACK = (
    '</pre></details></script><script>document.title="taken"</script><img src="https://example.org/x.png" '
    "onerror=\"document.title='taken'\"><svg onload=\"document.title='taken'\">"
    " \u202e\u05e9\u05dc\u05d5\u05dd \U0001f9ee\x00\x1b[31m"
)

# WCAG 2: contrast of text as it is really drawn, on the nearest background that covers; poor is below 4.5.
CONTRAST = """
(() => {
  const parse = (colour) => {
    const parts = colour.match(/[\\d.]+/g).map(Number);
    return { rgb: parts.slice(0, 3), alpha: parts.length > 3 ? parts[3] : 1 };
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.alpha === 1) return colour.rgb;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const texts = "h1,h2,h3,p,li,th,td,summary,figcaption,a,.badge,.soft,.note,pre,label,text";
  for (const one of document.querySelectorAll(texts)) {
    if (!one.textContent.trim() || !one.getClientRects().length) continue;
    const style = getComputedStyle(one);
    const ink = parse(one.tagName === "text" ? style.fill : style.color);
    const [a, b] = [light(ink.rgb), light(behind(one))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${one.tagName} ${ratio.toFixed(2)} ${one.textContent.trim().slice(0, 30)}`);
  }
  return poor;
})()
"""
VISIBLE = "Array.from(document.querySelectorAll('#texts > details')).filter((one) => !one.hidden)"
SET = """(() => {
  const field = document.querySelector('#filter [name=%s]');
  field.value = '%s';
  field.dispatchEvent(new Event('input', {bubbles: true}));
})()"""
KEY = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: '%s', bubbles: true}))"
TIP = "document.getElementById('tip')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as found:
        yield found


AXE, AXE_SHA256 = "4.14.1", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core's script, from npm: it is not in the repository."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not here")
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "pack", "--silent", "--fetch-retries=1", f"axe-core@{AXE}"]
    packed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if packed.returncode:
        pytest.skip(f"npm gives no axe-core: {packed.stderr.strip()[-200:]}")
    with tarfile.open(folder / f"axe-core-{AXE}.tgz") as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        script = member.read()
    assert hashlib.sha256(script).hexdigest() == AXE_SHA256
    return script.decode()


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A whole run of exp3, its samples full of attacks."""
    run = made_run(tmp_path_factory.mktemp("page") / "run", steps=60)
    for path in run.path.glob("eval/*/samples.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["text"], row["answer"] = ATTACK + row["text"], ATTACK[-40:] if row["sample"] == 0 else row["answer"]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return write_report(run)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (1280, True)])
def test_the_page_is_quiet_complete_and_fits(browser, page, width, dark):
    browser.open(page, width, dark=dark)
    assert browser.complaints == []
    assert browser.requests == [page.resolve().as_uri()]
    assert browser.value("document.title") == "Report on run"
    for part in ("verdicts", "scores", "problems", "training", "cost", "completions", "published", "manifest"):
        assert browser.value(f"document.getElementById('{part}').getBoundingClientRect().height") > 50, part
    assert browser.value("document.querySelectorAll('svg.plot').length") >= 18
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(CONTRAST) == []


def test_every_plot_has_words_and_no_id_stands_twice(browser, page):
    browser.open(page)
    words = "Array.from(document.querySelectorAll('svg.plot')).map((one) => one.closest('[role=img]').ariaLabel)"
    assert all(len(said) > 20 for said in browser.value(words))
    ids = browser.value("Array.from(document.querySelectorAll('[id]')).map((e) => e.id)")
    assert len(ids) == len(set(ids))
    links = browser.value("Array.from(document.querySelectorAll('nav a')).every((a) => document.querySelector(a.hash))")
    assert links is True


def test_text_of_plots_is_large_enough_on_a_phone(browser, page):
    browser.open(page, 390)
    heights = browser.value(
        "Array.from(document.querySelectorAll('svg.plot text')).map((t) => t.getBoundingClientRect())"
        ".map((b) => Math.min(b.height, b.width)).filter((h) => h > 0).map((h) => Math.round(h))"
    )
    assert len(heights) > 100
    assert sorted(heights)[len(heights) // 10] >= 5  # of one digit the width; its height is about twice that


def test_hostile_completions_do_nothing(browser, page):
    browser.open(page)
    browser.value("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.value("document.title") == "Report on run"
    assert browser.value("document.querySelectorAll('img, iframe, object, embed, base, main script').length") == 0
    assert browser.value("document.querySelectorAll('svg[onload], [onerror], [onclick]').length") == 0
    shown = browser.value("document.querySelector('#texts details[data-place^=evaluation] pre').textContent")
    assert '<script>document.title="taken"</script>' in shown
    assert "\u202e" not in shown
    assert "\x1b" not in shown
    assert browser.complaints == []


def test_a_script_that_got_into_the_page_would_not_run(browser, page, tmp_path):
    """The second wall: the page's policy allows its own script only, by its hash."""
    broken = tmp_path / "broken.html"
    attack = "<script>document.title='taken'</script><b onclick=\"document.title='taken'\" id=x>x</b>"
    broken.write_text(page.read_text().replace("<main>", f"<main>{attack}", 1))
    browser.open(broken)
    browser.value("document.getElementById('x').click()")
    assert browser.value("document.title") == "Report on run"
    assert any("Content Security Policy" in text for text in browser.complaints)


def test_pointing_at_a_cell_shows_the_answer(browser, page):
    browser.open(page)
    cell = "document.querySelector('table.strips .cells').children[1]"
    browser.value(f"{cell}.dispatchEvent(new PointerEvent('pointerover', {{bubbles: true}}))")
    said = browser.value(f"{TIP}.innerText")
    wanted = browser.value("JSON.parse(document.querySelector('table.strips .cells').dataset.c)[1]")
    assert "sample 2" in said
    assert wanted[1] in said
    assert wanted[0] in said
    browser.value("document.querySelector('table.strips .cells').focus()")
    browser.value(KEY % "ArrowRight")
    assert "sample 3" in browser.value(f"{TIP}.innerText")
    browser.value(KEY % "Escape")
    assert browser.value(f"{TIP}.hidden") is True


def test_completions_can_be_filtered(browser, page):
    browser.open(page)
    total = browser.value("document.querySelectorAll('#texts > details').length")
    assert browser.value(f"{VISIBLE}.length") == 12 < total
    browser.value(SET % ("verdict", "correct"))
    assert browser.value(f"{VISIBLE}.every((one) => one.dataset.verdict === 'correct')") is True
    browser.value(SET % ("text", "no completion has this"))
    assert browser.value(f"{VISIBLE}.length") == 0


def test_completions_can_be_searched_by_step_and_reward(browser, page):
    browser.open(page)
    browser.value(SET % ("to", "40"))
    browser.value(SET % ("from", "10"))
    steps = browser.value(f"{VISIBLE}.map((one) => Number(one.dataset.step))")
    assert steps
    assert all(10 <= step <= 40 for step in steps)
    browser.value(SET % ("least", "1"))
    paid = browser.value(f"{VISIBLE}.map((one) => Number(one.dataset.reward))")
    assert paid
    assert all(reward >= 1 for reward in paid)
    browser.value(SET % ("most", "0"))
    assert browser.value(f"{VISIBLE}.length") == 0


def test_a_score_table_folds_on_a_phone(browser, page):
    cells = "Array.from(document.querySelectorAll('table.fold td')).map((one) => one.getBoundingClientRect())"
    browser.open(page, 390)
    assert browser.value(f"{cells}.every((box) => box.left >= 0 && box.right <= 390)") is True
    assert "points" in browser.value(
        "getComputedStyle(document.querySelectorAll('table.fold td')[5], '::before').content"
    )


def test_paper_shows_everything(browser, page):
    browser.open(page)
    pdf = browser.call("Page.printToPDF", printBackground=True)
    assert len(pdf["data"]) > 100_000
    assert browser.value("Array.from(document.querySelectorAll('details:not(.text)')).every((d) => d.open)") is True


@pytest.mark.parametrize("what", ["nothing", "one sample", "empty run", "two runs", "long names"])
def test_other_kinds_of_reports_are_as_quiet(browser, tmp_path, what):
    names: list[str] = []
    if what == "one sample":
        run = Run(tmp_path / "one")
        for step, right in ((0, 200), (50, 260)):
            write_scores(run, f"step-{step:06d}", {"demo": verdicts(512, right)}, step=step)
        names = [str(run.path)]
    elif what == "empty run":
        (tmp_path / "empty").mkdir()
        names = [str(tmp_path / "empty")]
    elif what == "two runs":
        names = [str(made_run(tmp_path / f"run{seed}", steps=20, seed=seed).path) for seed in (1, 2)]
    elif what == "long names":
        run = Run(tmp_path / ("very" + "long" * 40))
        write_scores(run, "m" * 150, {"b" * 60: verdicts(30, 9, 2)})
        names = [str(run.path)]
    page = report_on(names, str(tmp_path / "out"))
    for width in (1280, 390):
        browser.open(page, width)
        assert browser.complaints == []
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.value(CONTRAST) == []
        paper = what in ("nothing", "two runs")
        assert browser.value("document.getElementById('verdicts') !== null") is paper


def test_the_authors_logs_in_a_browser(browser, tmp_path, shared_data):
    page = report_on([str(shared_data / "paper_logs")], str(tmp_path / "out"))
    browser.open(page)
    assert browser.complaints == []
    cells = browser.value("Array.from(document.querySelectorAll('#results tbody tr')).map((r) => r.innerText)")
    assert len(cells) == 10
    assert all("verified" in cell and "yes" in cell for cell in cells)


@pytest.mark.parametrize("what", ["paper", "own", "several", "logs"])
def test_axe_finds_nothing(browser, page, axe, tmp_path, shared_data, what):
    """Everything is opened first; light on a desk, dark on a phone."""
    if what == "logs":
        page = report_on([str(shared_data / "paper_logs")], str(tmp_path / "out"))
    elif what != "paper":
        runs = [made_run(tmp_path / f"run{seed}", steps=20, seed=seed) for seed in (1, 2)]
        for run in runs:
            run.recipe.write_text(run.recipe.read_text().split("paper:")[0])
        page = report_on([str(run.path) for run in runs[: 1 if what == "own" else 2]], str(tmp_path / "out"))
    for width, dark in ((1280, False), (390, True)):
        browser.open(page, width, dark=dark)
        browser.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        browser.value(f"{axe};0")
        found = browser.value(
            "axe.run(document, {resultTypes: ['violations']}).then((result) => result.violations"
            ".map((one) => [one.id, one.impact, one.nodes.map((node) => node.html.slice(0, 200))]))"
        )
        assert found == [], (width, dark)
