"""The course as a site that opens by double click: `python -m course.site` builds build/site from the pages.

Sphinx turns the notebooks into pages as they are stored; nothing is executed. The decks of slides and the live page
come with it. With --pdf Chromium also prints each page into build/site/pdf, which takes some minutes.
"""

import re
import shutil
import sys
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sphinx.cmd.build import build_main

from course import glossary, lectures, live, pages, site_pages, slides
from course.browser import chromium, launched

WEB = site_pages.WEB
FOOTER = """<p style="width: 100%; font: 8px sans-serif; text-align: center"><span class="title"></span>,
<span class="pageNumber"></span> of <span class="totalPages"></span></p>"""


def stage(source):
    """Copy the notebooks, and write the other pages from their templates."""
    shutil.rmtree(source, ignore_errors=True)
    left = shutil.ignore_patterns(".ipynb_checkpoints", "*.py", "*.cfg", "*.md")
    for name in ("notebooks", "figures"):
        shutil.copytree(name, source / name, ignore=left)
    known = site_pages.known()
    templates = Environment(loader=FileSystemLoader(WEB), undefined=StrictUndefined, keep_trailing_newline=True)
    for name in ("index", "ledger", "notation", "library"):
        (source / f"{name}.md").write_text(templates.get_template(f"{name}.md").render(known), encoding="utf-8")
    for name in ("exercises", "solutions"):
        text = templates.get_template("edition.md").render(title=name.capitalize(),
                                                           found=pages.paths(folder=pages.FOLDER / name))
        (source / f"{name}.md").write_text(text, encoding="utf-8")
    text = re.sub(r"\]\(([^)\s]+)\)", lambda link: f"]({glossary.anchor(link[1]).rstrip('-')})", lectures.render())
    (source / "notebooks/lectures.md").write_text(text, encoding="utf-8")


def build(folder="build", pdf=False):
    """Build folder/site anew, with the decks and the live page. Returns Sphinx's status: a warning is an error."""
    folder = Path(folder).resolve()
    site, source = folder / "site", folder / "site-source"
    shutil.rmtree(site, ignore_errors=True)
    stage(source)
    status = build_main(["-b", "html", "-c", str(WEB), "-d", str(folder / "site-doctrees"), "-E", "-j", "auto", "-q",
                         "-W", "--keep-going", "-D", f"pdf={int(pdf)}", str(source), str(site)])
    slides.main(folder=site / "slides")
    live.build(site / "live.html")
    return status


def documents(site):
    """The pages of a site that Sphinx built from a source."""
    return [path for path in sorted([*site.glob("*.html"), *site.glob("notebooks/**/*.html")])
            if path.name not in ("search.html", "live.html")]


def print_pdfs(site):
    """Print each page of a site into its folder pdf, by Chromium."""
    with launched() as browser:
        page = browser.new_page(color_scheme="light")
        for path in documents(site):
            page.goto(path.as_uri())
            page.evaluate("window.MathJax?.startup.promise.then(() => null)")
            page.pdf(path=(site / "pdf" / path.relative_to(site)).with_suffix(".pdf"), prefer_css_page_size=True,
                     display_header_footer=True, header_template="<i></i>", footer_template=FOOTER)


def main(*options):
    """Build the site, with --pdf also its printed pages; returns 0 when nothing was amiss."""
    if set(options) - {"--pdf"}:
        print(__doc__)
        return 0 if options[0] in ("-h", "--help") else 2
    pdf = "--pdf" in options
    if pdf and chromium() is None:
        raise SystemExit("site: --pdf wants Chromium or Chrome, and found neither")
    status = build(pdf=pdf)
    if pdf:
        print_pdfs(Path("build/site").resolve())
    print("site: build/site/index.html")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
