"""How Sphinx builds the site, and what it adds to the pages: links by equation number, alt texts, downloads."""

import re
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref

from course import pages
from course.assets import asset

project = "Variational autoencoders, derived and checked"
extensions = ["myst_nb", "course.site_search"]
nb_execution_mode = "off"
nb_render_text_lexer = "none"
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 4
myst_heading_slug_func = "course.glossary.anchor"

html_theme = "sphinx_book_theme"
html_title = project
html_use_index = False
html_domain_indices = False
smartquotes = False
html_static_path = ["site.css", "site.js", "search.js", str(asset("sphinx-mathjax-offline", "mathjax/tex-svg-full.js"))]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_search_summary = False  # course.site_search has excerpts that need no server
html_theme_options = {"show_toc_level": 2, "use_fullscreen_button": False, "footer_content_items": ""}
mathjax_path = "tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}}

MENTION = re.compile(r"\((\d+\.\d+)\)|\b[Pp]age (\d\d)\b|\b[Aa]ppendix ([AB])\b")  # of an equation or a page
CHECKED = re.compile(r"^\(\d+\.\d+\) holds ", re.MULTILINE)
PAGES = {f"notebooks/{path.stem}": path for path in pages.paths(folder=Path(pages.__file__).parents[1] / pages.FOLDER)}
EQUATIONS = {number: docname for docname, path in PAGES.items() for number in pages.equations(path)}
NUMBERED = {path.name[:2].rstrip("_"): docname for docname, path in reversed(PAGES.items())}  # 00 is the first
CHECKS = {docname: pages.checks(path) for docname, path in PAGES.items()}
NOT_PROSE = (nodes.FixedTextElement, nodes.literal, nodes.math, nodes.reference, pending_xref, nodes.title)


def linked(app, text, mark=None):
    """A text as nodes, with a link for each mention of an equation or of another page; `mark` gets an equation's."""
    parts, end = [], 0
    for found in MENTION.finditer(text):
        number, target = found[1], EQUATIONS.get(found[1]) or NUMBERED.get(found[2] or found[3])
        if target is None or (number is None and target == app.env.docname):
            continue
        address = app.builder.get_relative_uri(app.env.docname, target) + (f"#eq-{number}" if number else "")
        link = nodes.reference("", found[0], refuri=address, internal=True)
        parts += [nodes.Text(text[end:found.start()]), link]
        end = found.end()
        if number and mark:
            mark(number, link)
    return [*parts, nodes.Text(text[end:])]


def link_numbers(app, doctree):
    """Link what prose mentions, and note where an equation is mentioned for the list below it."""
    def mark(number, link):
        places = app.env.equation_uses.setdefault(number, [])
        link["ids"] = [f"use-{number}-{sum(page == app.env.docname for page, _, _ in places) + 1}"]
        section = text.parent.section_hierarchy()[-1]
        places.append((app.env.docname, link["ids"][0], section.next_node(nodes.title).astext()))

    for text in list(doctree.findall(nodes.Text)):
        node = text.parent
        while node and not isinstance(node, NOT_PROSE):
            node = node.parent
        if node is None and MENTION.search(text):
            text.parent.replace(text, linked(app, text, mark))


def open_equations(doctree):
    """Give each numbered equation an anchor, and a place below it for links to its check and its uses."""
    for block in list(doctree.findall(nodes.math_block)):
        formula = block.astext()
        block["nowrap"] = True  # else Sphinx puts it into a `split`, in which no \tag may stand
        block[:] = [nodes.Text(f"\\[{formula}\\]")]
        for number in pages.TAG.findall(formula):
            block["ids"].append(f"eq-{number}")
            block.parent.insert(block.parent.index(block) + 1, nodes.container(equation=number))


def join_punctuation(doctree):
    """Let no line begin with the full stop, comma or bracket behind a formula."""
    for formula in list(doctree.findall(nodes.math)):
        behind = formula.next_node(descend=False, siblings=True)
        if isinstance(behind, nodes.Text) and (mark := re.match(r"[.,;:!?)\]]+", behind)):
            behind.parent.replace(behind, nodes.Text(behind[mark.end():]))
            formula.replace_self(nodes.inline("", "", formula.deepcopy(), nodes.Text(mark[0]), classes=["joined"]))


def finish_cells(app, doctree):
    """Fold the code that only draws; give each picture its text, each check an anchor and a link to its equation."""
    for cell in [node for node in doctree.findall(nodes.container) if node.get("nb_element") == "cell_code"]:
        if "figure" in cell["cell_metadata"].get("tags", ()):
            cell["hide_mode"], cell["prompt_show"], cell["prompt_hide"] = "input", "Show the code", "Hide the code"
        for i, check in enumerate(CHECKS.get(app.env.docname, ())):
            if check.cell == cell["cell_index"]:
                cell["ids"].append(f"check-{check.number}-{i}")
        for image in cell.findall(nodes.image):
            image["alt"] = image.parent.parent.children[-1].astext()  # the text/plain beside it
        if "Explorer(" in cell.children[0].astext() and len(cell.children) > 1:
            cell.append(nodes.paragraph("", "In Jupyter this picture has sliders, and moves.", classes=["explorer"]))
        for block in list(cell.findall(nodes.literal_block)):
            if "stream" in block["classes"] and CHECKED.search(block.astext()):
                links = linked(app, block.astext())
                block.replace_self(nodes.literal_block("", "", *links, classes=block["classes"]))


def open_solutions(app, doctree):
    """Below each exercise, link to its solution. The search finds a page before the solutions to its exercises."""
    folder, _, stem = app.env.docname.rpartition("/")
    app.env.metadata[app.env.docname] |= {"nosearch": True} if folder == "notebooks/solutions" else {}
    if folder == "notebooks/exercises":
        for section in doctree.findall(nodes.section):
            if number := re.match(r"(\d+|[A-Z])\.\d+ ", section.next_node(nodes.title).astext()):
                address = app.builder.get_relative_uri(app.env.docname, f"notebooks/solutions/{stem}")
                link = nodes.reference("", f"Solution {number[0].strip()}", refuri=f"{address}#{section['ids'][0]}")
                section.append(nodes.paragraph("", "", link))


def read_page(app, doctree):
    open_equations(doctree)
    open_solutions(app, doctree)
    link_numbers(app, doctree)
    join_punctuation(doctree)
    finish_cells(app, doctree)
    for raw in doctree.findall(nodes.raw):
        if raw.astext().startswith("<details>"):
            raw[:] = [nodes.Text(summary(raw.astext()))]


def summary(html):
    """The summary of what is folded, which is HTML, with formulas and code; links do not belong in there."""
    html = re.sub(r"\$([^$]+)\$", r'<span class="math notranslate nohighlight">\\(\1\\)</span>', html)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html)


def close_equations(app, doctree, docname):
    """Below each numbered equation, link to its checks and to the places that use it."""
    def address(page, anchor):
        return (app.builder.get_relative_uri(docname, page) if page != docname else "") + f"#{anchor}"

    for place in [node for node in doctree.findall(nodes.container) if node.hasattr("equation")]:
        number, uses = place["equation"], {}
        checks = [f'<a href="#check-{number}-{i}">{escape(check.against)}</a>'
                  for i, check in enumerate(CHECKS[docname]) if check.number == number]
        for page, anchor, title in sorted(app.env.equation_uses.get(number, ()), key=lambda use: use[0] != docname):
            name = re.split(" ·|:", app.env.titles[page].astext())[0]
            uses.setdefault(name, []).append(f'<a href="{address(page, anchor)}">{escape(title)}</a>')
        html = f'<p><a href="#eq-{number}">({number})</a> is checked against {", ".join(checks)}.</p>'
        if uses:
            items = "".join(f"<li>{name}: {', '.join(links)}</li>" for name, links in uses.items())
            count = sum(map(len, uses.values()))
            times = "once" if count == 1 else f"{count} times"
            html += f"<details><summary>Used {times}</summary><ul>{items}</ul></details>"
        place.replace_self(nodes.raw("", f'<div class="equation-links">{html}</div>', format="html"))


def merge_uses(app, env, docnames, other):
    for number, uses in other.equation_uses.items():
        env.equation_uses.setdefault(number, []).extend(use for use in uses if use[0] in docnames)


def offer_downloads(app, pagename, templatename, context, doctree):
    """The page as PDF, if that was printed, as a notebook, as it is in the repository, and as slides."""
    up = context["pathto"]
    buttons = [button for button in context["header_buttons"] if button["label"] != "download-buttons"]
    if pagename in app.env.found_docs:
        offered = [("PDF", "fas fa-file-pdf", up(f"pdf/{pagename}.pdf", 1))] if app.config.pdf else []
        if app.env.doc2path(pagename).suffix == ".ipynb":
            offered.append(("Notebook", "fas fa-code", up(f"_sources/{pagename}.ipynb", 1)))
        if pagename in PAGES:
            offered.append(("Slides", "fas fa-display", up(f"slides/{pagename.split('/')[1]}.html", 1)))
        buttons[:0] = [{"type": "link", "url": url, "text": text, "icon": icon, "tooltip": f"This page as {text}",
                        "label": f"download-{text.lower()}-button"} for text, icon, url in offered]
    context["header_buttons"] = buttons


def setup(app):
    app.add_config_value("pdf", False, "html")
    app.connect("builder-inited", lambda app: vars(app.env).setdefault("equation_uses", {}))
    app.connect("doctree-read", read_page)
    app.connect("env-merge-info", merge_uses)
    app.connect("doctree-resolved", close_equations)
    app.connect("html-page-context", offer_downloads, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
