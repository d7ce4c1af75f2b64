"""The decks of slides: how prose is thinned, and what a browser measures on every slide."""

import base64
import json
import re
from contextlib import contextmanager
from functools import cache, partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import nbformat
import pytest

from course import browser, pages, slide_blocks, slides

PAGES = pages.paths()
needs_chromium = pytest.mark.skipif(browser.chromium() is None, reason="no Chromium on this machine")

# For each slide: its blocks' outer edges, the smallest text and the smallest sign of a formula (the size of the font
# that it is taken from, as for text), formulas that failed, and typed dollars. All slides are laid out at once: to turn
# to each takes four times as long.
MEASURE = """() => Reveal.configure({ viewDistance: 1000 }) ?? Reveal.getSlides().map((slide, i) => {
  const letters = [], signs = [], typed = [], walker = document.createTreeWalker(slide, NodeFilter.SHOW_TEXT);
  let dollars = 0, right = 0, bottom = 0, cut = "";
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || parent.closest("aside, mjx-assistive-mml, svg, style")) continue;
    letters.push(parseFloat(getComputedStyle(parent).fontSize));
    if (parent.closest("pre")) typed.push(letters.at(-1));
    if (!parent.closest("pre, code")) dollars += /[$]|\\\\[a-z]/.test(walker.currentNode.data);
  }
  for (const sign of slide.querySelectorAll("mjx-container path[d]:not([d=''])"))
    signs.push(1000 * sign.getScreenCTM().a);
  const parts = ":not(svg *, mjx-assistive-mml, mjx-assistive-mml *)";
  for (const element of slide.querySelectorAll(`h2, .body, .block, .block ${parts}, footer`)) {
    const box = element.getBoundingClientRect(), inline = getComputedStyle(element).display === "inline";
    right = Math.max(right, box.right);
    bottom = Math.max(bottom, element.matches("footer, .body") ? 0 : box.bottom);
    if (element instanceof HTMLElement && !inline && element.scrollWidth > element.clientWidth + 20)
      cut += `${element.tagName} ${element.scrollWidth} > ${element.clientWidth}: ${element.textContent.slice(0, 40)}`;
  }
  const tags = [...slide.querySelectorAll(".equation mjx-assistive-mml mtext")].map(tag => tag.textContent);
  const footer = slide.querySelector("footer").getBoundingClientRect();
  const inner = [...slide.querySelectorAll(".block")].map(block => block.getBoundingClientRect().bottom);
  const said = slide.querySelector("aside"), top = slide.querySelector(".body").getBoundingClientRect().top;
  slide.querySelectorAll("mjx-assistive-mml").forEach(twin => twin.remove());
  return { number: i + 1, right, bottom, lowest: Math.max(...inner), footer: footer.top, shown: footer.bottom, cut,
    letters: Math.min(...letters), signs: Math.min(1000, ...signs), typed: Math.min(1000, ...typed), dollars, tags,
    filled: (Math.max(...inner) - top) / 868, title: slide.querySelector("h2").textContent, notes: said.textContent,
    body: slide.querySelector(".body").textContent, alone: !slide.querySelector(".block:not(.output)"),
    errors: slide.querySelectorAll("[data-mml-node=merror], mjx-merror").length };
})"""


@cache
def cells_of(path):
    return nbformat.read(path, as_version=4).cells


def cell(source, kind="markdown", slide_type=None):
    made = nbformat.v4.new_markdown_cell(source) if kind == "markdown" else nbformat.v4.new_code_cell(source)
    if slide_type:
        made.metadata["slideshow"] = {"slide_type": slide_type}
    return made


def thinned(source, **options):
    runs = slide_blocks.thin(slide_blocks.PARSE(source)[0]["children"], **options)
    return slide_blocks.plain([token for stays, run in runs if stays for token in run]).strip()


def test_sentences_end_at_full_stops_of_prose_only():
    text = "One. It is 0.5 of $a. B$ and `c. D`. **Bold?** \"Said.\" Then (a\nline).\nLast $x$. End"
    tokens = slide_blocks.PARSE(text)[0]["children"]
    found = [slide_blocks.plain(sentence).strip() for sentence in slide_blocks.sentences(tokens)]
    assert found == ["One.", "It is 0.5 of a. B and c. D.", "Bold?", '"Said."', "Then (a line).", "Last x.", "End"]


def test_thinning_keeps_short_paragraphs_key_sentences_and_what_leads_on():
    long = "The first sentence. " + "A filler with many words in it. " * 9
    assert thinned("Two. Sentences.") == "Two. Sentences."
    assert thinned(long + "**The key.** " + long).startswith("The first sentence.")
    assert "The key." in thinned(long + "**The key.** " + long)
    assert thinned(long + "So we get", leads=True).endswith("So we get")
    assert "So we get" not in thinned(long + "So we get")
    assert len(thinned(long)) <= slide_blocks.BUDGET < len(long)
    assert "The ratio falls." in thinned(long + "The ratio falls. **It is the key.**")
    assert "The ratio falls." not in thinned(long + "The ratio falls. **The key.**")


def test_the_speaker_has_what_the_slide_leaves_out():
    filler = "A filler with many words in it. "
    paragraph, item, whole = slide_blocks.blocks_of_text(
        f"First. {filler * 9} **Key.** Last.\n\n- Item. {filler * 4}\n- Short.\n\nBrief. It *is* all here.")
    assert paragraph.html.startswith("<p><span>First. ") and "<strong>Key.</strong>" in paragraph.html
    assert re.fullmatch(f"<p><i>… </i>({filler})+ *<i>… </i></p>", paragraph.note)
    assert (paragraph.html + paragraph.note).count(filler) == 9
    assert re.fullmatch(f"<p><i>… </i>({filler})+</p>", item.note)
    assert whole.html == "<p>Brief. It <em>is</em> all here. </p>" and whole.note == ""


def test_the_question_of_a_vote_is_whole():
    for path in PAGES:
        for each in cells_of(path):
            if each.cell_type == "markdown" and "<b>Predict" in each.source:
                found = slide_blocks.prediction(each.source)
                options = next(i for i, block in enumerate(found) if block.kind == "list options")
                assert found[options - 1].html.rstrip("</p> ").endswith("?"), each.source[:80]


def test_links_lead_to_decks_or_are_plain_text():
    source = "[a](02_elbo.ipynb#The-gap:-why%3F) [b](exercises/02_elbo.ipynb#2.1) [c](#Two-maps)"
    html = slide_blocks.blocks_of_text(source)[0].html
    assert html == '<p><a href="02_elbo.html#/the-gap-why">a</a> b <a href="#/two-maps">c</a> </p>'


def test_stored_slide_types_are_obeyed_and_others_have_defaults():
    cells = [cell("# 99 · Why?\n\nBecause."), cell("import math", "code"), cell("## One\n\nText."),
             cell("x = 1", "code"), cell("Unseen.", slide_type="skip"), cell("Said.", slide_type="notes"),
             cell("New.", slide_type="subslide"), cell("Later.", slide_type="fragment"),
             cell("## References\n\n- A book.")]
    types = "slide skip slide - skip notes subslide fragment skip"
    assert slides.slide_types(cells) == types.split()
    html = slides.deck("Why?", slides.groups(cells))
    assert "Unseen" not in html and "book" not in html and "import" not in html
    assert re.search(r'<aside class="notes"><p>Said.</p>\s*</aside>', html)
    assert re.search(r'fragment" data-fragment-index="7"><p>Later', html)


def test_what_is_too_short_for_a_slide_stays_with_its_neighbour():
    predict = ("<details><summary><b>Predict, then run:</b> more or less?</summary>\n\n- a) More.\n- b) Less.\n\n"
               "<details><summary>Answer</summary>\n\nb). It costs.\n\n</details>\n</details>\n")
    cells = [cell("# 99 · Why?\n\nBecause."), cell("import math", "code"), cell("On the imports."),
             cell("## One\n\nA short opening."), cell("Long:\n" + "- An item.\n" * 12), cell("x = 1", "code"),
             cell("A remark.\n\n## Two\n\nAnother opening."), cell(predict), cell(predict + "Words about the answer.")]
    assert slides.slide_types(cells) == "slide skip subslide slide - - - - subslide".split()
    found = slides.groups(cells)[2:]
    assert [re.sub("<.*?>", "", title) for _, title, _, _ in found] == [
        "One", "Two · Predict, then run", "Two · Answer", "Two · Predict, then run", "Two · Answer"]
    assert "A remark" in found[0][3][-1][0].html and "Another opening" in found[1][3][0][0].html
    assert "Words about" in found[-1][3][-1][0].html


def test_a_folded_answer_is_for_the_speaker():
    folded = "<details><summary>Answer</summary>\n\nAt *one*.\n\n</details>"
    block, = slide_blocks.blocks(cell(f"Where is it?\n\n{folded}"))
    assert "Where is it?" in block.html and "one" not in block.html and block.note == "<p>At <em>one</em>.</p>\n"


def test_code_between_words_is_code():
    before, code, after = slide_blocks.blocks_of_text("Call it so:\n\n```python\nf(x)  # here\n\nf(y)\n```\n\nThen.")
    assert before.kind == "text lead" and code.kind == "code" and after.kind == "text"
    assert code.html == '<pre style="--letters: 12">f(x)  <span class="c1"># here</span>\n\nf(y)</pre>'


def test_other_details_and_outputs_are_refused():
    with pytest.raises(ValueError, match="details: wanted"):
        slide_blocks.prediction("<details><summary>Hint</summary>A hint.</details>")
    odd = cell("1", "code")
    odd.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "1"})]
    with pytest.raises(ValueError, match="output: wanted"):
        slide_blocks.blocks_of_code(odd)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_cell_has_a_stored_slide_type(path):
    known = {"slide", "subslide", "fragment", "-", "skip", "notes"}
    for each in cells_of(path):
        assert each.metadata.get("slideshow", {}).get("slide_type") in known, each.source[:80]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_explorers_are_cut_between_their_pictures(path):
    for each in cells_of(path):
        for output in each.get("outputs", []):
            if output.output_type == "execute_result":
                cut = slide_blocks.pictures(output)
                assert len(cut) > 1 and all("<img" in block.html and "<b>" in block.html for block in cut)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    slides.main(folder=folder)
    return folder


@pytest.fixture(scope="module")
def screen(chromium):
    """One page of the browser for all decks, which keeps the scripts that they share compiled."""
    return chromium.new_page(viewport={"width": 1920, "height": 1080})


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that logs nothing."""

    def log_message(self, *_):
        pass


@contextmanager
def opened(page, address):
    """Show a deck while the block runs; yields what the page complains of and what it asks for."""
    heard = {"console": [], "requests": []}
    listeners = {"console": lambda message: heard["console"].append(message.text) if message.type == "error" else None,
                 "pageerror": lambda error: heard["console"].append(str(error)),
                 "request": lambda request: heard["requests"].append(request.url)}
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(address, wait_until="commit")
    page.wait_for_function("window.Reveal?.isReady?.()", timeout=60_000)
    yield heard
    for event, listener in listeners.items():
        page.remove_listener(event, listener)


@pytest.fixture(scope="module")
def measured(screen, folder):
    """What the browser measures on the slides of every deck; the table of it goes to sizes.json."""
    found, table = {}, {}
    for path in PAGES:
        with opened(screen, (folder / f"{path.stem}.html").as_uri()) as heard:
            found[path.stem] = screen.evaluate(MEASURE), heard
        sizes = found[path.stem][0]
        table[path.stem] = {
            "slides": len(sizes), "smallest text": min(slide["letters"] for slide in sizes),
            "smallest code": round(min(slide["typed"] for slide in sizes), 1),
            "smallest sign of a formula": round(min(slide["signs"] for slide in sizes), 1),
            "lowest edge": round(max(slide["bottom"] for slide in sizes)),
            "filled below 45 %": round(sum(slide["filled"] < 0.45 for slide in sizes) / len(sizes), 3)}
    slides.FOLDER.mkdir(parents=True, exist_ok=True)
    (slides.FOLDER / "sizes.json").write_text(json.dumps(table, indent=1) + "\n")
    return found


@needs_chromium
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_slide_fits_and_can_be_read(path, measured):
    sizes, heard = measured[path.stem]
    for slide in sizes:
        assert slide["right"] <= 1920 and slide["lowest"] <= slide["footer"] and slide["bottom"] <= 1080, slide
        assert slide["shown"] <= 1080 and slide["cut"] == "", slide
        assert not slide["alone"] or slide["bottom"] > 700, slide  # an output alone fills its slide
        assert slide["letters"] >= 24 and slide["signs"] >= 24 and slide["errors"] == slide["dollars"] == 0, slide
    assert sum(slide["filled"] < 0.45 for slide in sizes) <= 0.1 * len(sizes)
    assert heard["console"] == []
    assert all(request.startswith(("file://", "data:")) for request in heard["requests"])


@needs_chromium
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_numbers_and_pictures_of_the_page_are_in_its_deck(path, measured, folder):
    tags = {tag for slide in measured[path.stem][0] for tag in slide["tags"]}
    assert {f"({number})" for number in pages.equations(path)} <= tags
    html = (folder / f"{path.stem}.html").read_text(encoding="utf-8")
    for each in cells_of(path):
        for output in each.get("outputs", []):
            if output.output_type == "display_data" and "image/png" in output.data:
                assert html.count("".join(output.data["image/png"].split())) == 1


def words(text):
    """A text without white space, in which browsers and Markdown differ."""
    return re.sub(r"\s+", "", text)


def paragraphs(source):
    """The inline tokens of each paragraph and list item of Markdown."""
    waiting = slide_blocks.PARSE(slide_blocks.PREDICT.sub("\n\n", source))
    while waiting:
        token = waiting.pop()
        if token["type"] in ("paragraph", "block_text"):
            yield token["children"]
        elif token["type"] in ("list", "list_item"):
            waiting += token["children"]


@needs_chromium
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_sentence_of_the_page_is_lost_and_none_both_shown_and_said(path, measured):
    sizes = measured[path.stem][0]
    told = [(words(slide["body"]), words(slide["notes"])) for slide in sizes]
    everything = " ".join(text for pair in told for text in pair)
    cells = cells_of(path)
    for each, kind in zip(cells, slides.slide_types(cells), strict=True):
        if each.cell_type == "code" or kind == "skip":
            continue
        for tokens in paragraphs(each.source):
            for sentence in slide_blocks.sentences(tokens):
                texts = [words(token["raw"]) for token in sentence if token["type"] in ("text", "codespan")]
                assert [text for text in texts if unescape(text) not in everything] == []
                long = max(texts, key=len, default="")
                assert len(long) < 40 or not any(long in shown and long in said for shown, said in told), long


@needs_chromium
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_between_decks_find_their_sections(path, folder):
    html = (folder / f"{path.stem}.html").read_text(encoding="utf-8")
    for target, address in re.findall(r'<a href="([\w.]*)#/([\w-]+)"', unescape(html)):
        there = (folder / target).read_text(encoding="utf-8") if target else html
        assert f'id="{address}"' in there, (target, address)


@needs_chromium
def test_the_speaker_view_shows_the_notes(screen, folder):
    with opened(screen, (folder / "A_the_article.html").as_uri() + "#/1") as heard, screen.expect_popup() as popup:
        screen.keyboard.press("s")
    spoken = popup.value.locator(".speaker-controls-notes .value")
    spoken.filter(has_text=re.compile(r"\w")).wait_for(timeout=30_000)
    assert spoken.text_content() == screen.evaluate("Reveal.getCurrentSlide().querySelector('aside').textContent")
    assert heard["console"] == []
    popup.value.close()


@needs_chromium
def test_printed_each_slide_is_a_page(screen, folder, measured):
    with opened(screen, (folder / "A_the_article.html").as_uri() + "?print-pdf") as heard:
        screen.wait_for_selector(".pdf-page")
        printed = screen.evaluate("""() => [...document.querySelectorAll(".pdf-page")].map(page => {
          const sheet = page.getBoundingClientRect(), footer = page.querySelector("footer").getBoundingClientRect();
          const blocks = [...page.querySelectorAll("h2, .block")].map(block => block.getBoundingClientRect());
          return blocks.every(box => box.left >= 40 && box.right <= 1880 && box.bottom <= footer.top)
            && footer.top > sheet.top + 1000 && footer.bottom <= sheet.bottom && footer.right <= sheet.right;
        })""")
        pdf = screen.pdf(prefer_css_page_size=True)
    assert printed == [True] * len(measured["A_the_article"][0])
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == len(printed)
    assert heard["console"] == []


@needs_chromium
def test_decks_work_from_the_subfolder_of_a_server(screen, folder):
    handler = partial(Quiet, directory=folder.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{folder.name}/"
        with opened(screen, address + "index.html") as heard:
            screen.get_by_role("link", name="What does the article say").click()
            screen.wait_for_url("**/A_the_article.html*")
            screen.wait_for_function("window.Reveal?.isReady?.()")
        server.shutdown()
    assert heard["console"] == []
    assert all(request.startswith((address, "data:")) for request in heard["requests"])


def test_pictures_are_stored_as_they_came(folder):
    html = (folder / "04_gaussian_kl.html").read_text(encoding="utf-8")
    for png in re.findall(r'base64,([^"]+)" width="(\d+)" height="(\d+)" alt="[^"]+', html):
        data = base64.b64decode(png[0])
        assert data.startswith(b"\x89PNG") and int.from_bytes(data[16:20]) == int(png[1])
