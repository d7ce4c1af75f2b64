"""The site: built without a warning or a network, whole in every link, and usable on a phone, in the dark, by ear."""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup

from course import browser, glossary, pages, site

NUMBER = re.compile(r"\((\d+\.\d+)\)")
EQUATIONS = {number for path in pages.paths() for number in pages.equations(path)}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
in_browser = pytest.mark.skipif(browser.chromium() is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of a site that is built without a warning; with the live page's template, which has its links."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site.live, "build", lambda path: shutil.copyfile(site.WEB / "live.html", path))
        assert site.build(folder) == 0
    return folder / "site"


@pytest.fixture(scope="module")
def parsed(built):
    """Each page of the site, parsed, with the live page and the decks' index: a dict from its path."""
    others = [built / name for name in ("search.html", "live.html", "slides/index.html")]
    return {path: BeautifulSoup(path.read_text(), "html.parser") for path in [*site.documents(built), *others]}


def test_every_notebook_is_a_page_and_its_download_is_the_repositorys(built):
    for path in sorted(Path("notebooks").rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            assert (built / path).with_suffix(".html").exists()
            assert (built / "_sources" / path).read_bytes() == path.read_bytes()


def test_every_link_leads_to_a_file_and_an_anchor_of_the_site(parsed):
    anchors = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in parsed.items()}
    broken = []
    for path, soup in parsed.items():
        for tag in soup.select("[href], [src]"):
            link = tag.get("href", tag.get("src"))
            address, _, fragment = unquote(link).partition("#")
            if re.match(r"https?:|mailto:", address):
                assert tag.name == "a", f"{path.name} loads {address}"
            if re.match(r"https?:|mailto:|data:", address):
                continue
            target = (path.parent / address.partition("?")[0]).resolve() if address else path
            if not target.exists() or (fragment and target in anchors and fragment not in anchors[target]):
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_index_live_page_and_decks_are_linked_to_one_another(built, parsed):
    def links(path):
        return {(path.parent / tag["href"].partition("#")[0]).resolve() for tag in parsed[path].select("a[href]")}

    live, decks = built / "live.html", built / "slides/index.html"
    assert {live, decks} <= links(built / "index.html")
    assert decks in links(built / "notebooks/lectures.html")
    assert {built / "index.html", built / "notebooks/02_elbo.html"} <= links(live)
    for path in pages.paths():
        deck = built / f"slides/{path.stem}.html"
        assert deck in links(decks) and deck in links(built / f"notebooks/{path.stem}.html")


def test_every_equation_links_to_its_check_and_the_check_and_the_ledger_to_it(built, parsed):
    ledger = parsed[built / "ledger.html"]
    listed = {NUMBER.match(row.text.strip())[1] for row in ledger.select("table.ledger tbody tr")}
    assert listed == EQUATIONS
    rows = {tag["href"] for tag in ledger.select("table.ledger a[href]")}
    for path in pages.paths():
        soup = parsed[built / f"notebooks/{path.stem}.html"]
        named = {tag["id"]: tag for tag in soup.find_all(id=True)}
        printed = {(link.text, link["href"].partition("#")[2]) for link in soup.select(".cell_output pre a[href]")}
        for number in pages.equations(path):
            equation = named[f"eq-{number}"]
            assert f"\\tag{{{number}}}" in equation.text
            links = equation.find_next_sibling(class_="equation-links").select('a[href^="#check-"]')
            assert links
            for link in links:
                target = named[link["href"][1:]]
                assert f'"{number}"' in target.find_parent(class_="cell").text if target.name == "span" else target.text
                assert f"notebooks/{path.stem}.html{link['href']}" in rows
            assert (f"({number})", f"eq-{number}") in printed


def test_every_number_of_an_equation_in_prose_is_a_link(parsed):
    for path, soup in parsed.items():
        for text in soup.select_one("article").find_all(string=NUMBER) if soup.select_one("article") else ():
            known = [number for number in NUMBER.findall(text) if number in EQUATIONS]
            if known and not text.find_parents(["pre", "code", "a", "h1", "h2", "h3", "summary", "script"]):
                assert text.find_parents(class_="math"), f"{path.name}: {text}"


def test_every_picture_has_a_text(parsed):
    pictures = [(path, image) for path, soup in parsed.items() for image in soup.select("article img")]
    assert len(pictures) > 70
    for path, image in pictures:
        alt = image.get("alt", "")
        assert len(alt) > 30 and not alt.endswith(".png"), f"{path.name}: {image['src']} has the text {alt!r}"


def test_explorers_say_where_they_move_and_code_that_draws_is_folded(built, parsed):
    soup = parsed[built / "notebooks/04_gaussian_kl.html"]
    assert soup.select("p.explorer")
    assert all(cell.select("details.hide .cell_input") for cell in soup.select(".cell.tag_figure"))
    assert not soup.select(".cell:not(.tag_figure) details.hide")


def test_each_symbol_and_term_leads_to_a_page(built, parsed):
    soup = parsed[built / "notation.html"]
    rows = soup.select("table tbody tr")
    assert len(rows) >= 12 and all(row.select('td:last-child a[href^="notebooks/"]') for row in rows)
    terms = [glossary.LINE.fullmatch(line)[1] for line in glossary.TERMS.read_text(encoding="utf-8").splitlines()]
    assert [term.text for term in soup.select("dt")] == sorted(terms, key=str.lower)
    assert all(entry.select('a[href^="notebooks/"]') for entry in soup.select("dd"))


def test_a_term_that_no_page_has_is_named():
    with pytest.raises(ValueError, match=r"no page has \*free lunch\* in italics"):
        glossary.find("free lunch")


def test_unknown_options_show_the_help(capsys):
    assert site.main("--help") == 0
    assert site.main("--fast") == 2
    assert "--pdf" in capsys.readouterr().out


# In a browser

@pytest.fixture
def phone(chromium):
    """A page of 390 pixels in dark mode, and the list of what it asks for beyond the site or complains about."""
    context = chromium.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page, faults = context.new_page(), []
    page.on("request", lambda request: request.url.startswith(("file://", "data:")) or faults.append(request.url))
    page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
    yield page, faults
    context.close()


# What a page shows once all that is folded is open: whether it scrolls sideways, its formulas in error and those that
# begin left of the screen, the colours behind its figures, how many boxes scroll that no keyboard reaches, and how many
# links only their colour tells from the text.
MEASURE = """async () => {
  const all = pattern => [...document.querySelectorAll(pattern)];
  for (const box of all("details")) box.open = true;
  await window.MathJax?.startup.promise;
  await new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  dispatchEvent(new Event("resize"));
  const style = image => getComputedStyle(image).backgroundColor + getComputedStyle(image).filter;
  return {sideways: document.documentElement.scrollWidth > innerWidth,
          errors: all("mjx-merror, [data-mml-node=merror]").length,
          cut: all("div.math mjx-container").filter(each => each.getBoundingClientRect().left < 0).length,
          colours: [...new Set(all("article img").map(style))].filter(each => each !== "rgb(255, 255, 255)none"),
          unreached: all("div.math, article pre").filter(box => box.scrollWidth > box.clientWidth + 1 &&
            ![box, ...box.querySelectorAll("mjx-container")].some(part => part.tabIndex === 0)).length,
          plain: all("article p a[href]").filter(a => getComputedStyle(a).textDecorationLine !== "underline").length};
}"""
# Texts too faint for what lies behind them, by WCAG's formula: below 4.5, or 3 where they are large. Of texts in equal
# elements, such as a keyword of code, the first is looked at.
FAINT = """scheme => {
  document.head.insertAdjacentHTML("beforeend", "<style>* { transition: none !important }</style>");
  document.documentElement.dataset.theme = scheme;
  const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parts = colour => { const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = ([r, g, b, a], below) => [r, g, b].map((c, k) => a * c + (1 - a) * below[k]);
  const ground = box => box ? over(parts(getComputedStyle(box).backgroundColor), ground(box.parentElement))
    : [255, 255, 255];
  const paths = new Map([[null, ""]]), seen = new Set(), found = {};
  const path = box => {
    if (!paths.has(box)) paths.set(box, `${path(box.parentElement)}>${box.localName}.${box.className}` +
      (box.localName === "tr" ? box.rowIndex % 2 : ""));
    return paths.get(box);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const box = texts.currentNode.parentElement, kind = path(box);
    if (seen.has(kind) || !texts.currentNode.data.trim() || !box.checkVisibility()) continue;
    if (box.closest("script, style, noscript, .dropdown-menu")) continue;
    seen.add(kind);
    const style = getComputedStyle(box), size = parseFloat(style.fontSize), below = ground(box);
    const levels = [light(over(parts(style.color), below)), light(below)].sort((a, b) => b - a);
    const ratio = (levels[0] + 0.05) / (levels[1] + 0.05), large = size >= 24 || size > 18.6 && style.fontWeight >= 700;
    if (ratio < (large ? 3 : 4.5)) found[`${style.color} on ${below}: ${ratio.toFixed(2)}`] = box.outerHTML;
  }
  return found;
}"""
# Code and formulas make most of a page's elements: as bare text they cost little time.
BARE = """pattern => { for (const box of document.querySelectorAll(pattern)) box.replaceChildren(box.textContent); }"""
# What the words of a page can break; the rest is the theme's, and the same on every page. Two of axe's rules take
# longer than all others: MEASURE and FAINT stand for them, on every page.
BY_CONTENT = ["aria-hidden-focus", "definition-list", "dlitem", "empty-table-header", "frame-title", "image-alt",
              "link-name", "list", "listitem", "nested-interactive", "object-alt", "scrollable-region-focusable",
              "summary-name", "svg-img-alt", "td-headers-attr", "th-has-data-cells"]
WHOLE = {"index.html", "ledger.html", "notation.html", "search.html", "notebooks/02_elbo.html",
         "notebooks/exercises/04_gaussian_kl.html"}


def serious(page, axe, whole):
    """What axe finds serious or critical in a page, formulas aside: MathJax draws them, and they take axe long."""
    options = {"resultTypes": ["violations"], "runOnly": ["wcag2a", "wcag2aa"] if whole else BY_CONTENT,
               "rules": {"color-contrast": {"enabled": False}, "link-in-text-block": {"enabled": False}}}
    found = axe.run(page, context={"exclude": [["mjx-container"]]}, options=options).response["violations"]
    return [f"{page.url}: {each['id']} at {[node['target'] for node in each['nodes']][:3]}"
            for each in found if each["impact"] in ("serious", "critical")]


def test_a_mention_of_a_page_and_an_exercise_lead_on(parsed, built):
    def links(name, words):
        return {tag["href"] for tag in parsed[built / f"notebooks/{name}.html"].select("article a[href]")
                if tag.get_text() == words}

    assert links("02_elbo", "Page 03") == {"03_em_to_vae.html"} and links("02_elbo", "page 02") == set()
    assert links("exercises/04_gaussian_kl", "Solution 4.1") == {"../solutions/04_gaussian_kl.html#a-budget"}


@in_browser
def test_every_page_works_on_a_phone_in_both_colours_and_axe_finds_no_serious_fault(built, phone):
    page, faults = phone
    axe = Axe()
    for path in [built / "search.html", *site.documents(built)]:
        page.goto(path.as_uri())
        faults += [f"{path.name}: {name}: {found}" for name, found in page.evaluate(MEASURE).items() if found]
        page.evaluate(BARE, "mjx-container")
        for scheme in ("light", "dark"):
            faults += [f"{path.name}, {scheme}: {found}" for found in page.evaluate(FAINT, scheme).items()]
        page.evaluate(BARE, ".highlight pre")
        faults += serious(page, axe, str(path.relative_to(built)) in WHOLE)
    assert faults == []


@in_browser
def test_search_shows_an_excerpt_and_its_section_on_a_page_opened_by_double_click(built, phone):
    page, faults = phone
    page.goto((built / "search.html").as_uri())
    page.locator("form.bd-search input").last.fill("reparameterization trick")
    page.keyboard.press("Enter")
    first = page.locator("#search-results li").first
    first.get_by_role("link", name="How does a gradient get through a sample?").wait_for()
    excerpt = first.locator("p.context")
    assert {"reparameterization", "trick"} <= set(excerpt.locator("mark").all_inner_texts())
    page.goto((built / "search.html").as_uri() + "?q=receptive+field")
    page.locator("#search-results li p.context mjx-container").first.wait_for()
    page.locator("#search-results li p.context a[href*='09_conv_vae_mnist.html#']").click()
    page.locator(":target", has_text="receptive field").wait_for()
    assert faults == []


@in_browser
def test_paper_is_white_shows_what_is_folded_and_has_the_screens_page_back(built, phone):
    page, _ = phone
    page.goto((built / "notebooks/exercises/04_gaussian_kl.html").as_uri())
    state = """() => [document.documentElement.dataset.theme,
                      document.querySelectorAll("article details:not([open])").length]"""
    page.wait_for_load_state()
    before = page.evaluate(state)
    page.evaluate("addEventListener('beforeprint', () => { window.printed = (%s)() })" % state)
    page.pdf()
    assert before[0] == "dark" and before[1] > 5
    assert page.evaluate("window.printed") == ["light", 0] and page.evaluate(state) == before
