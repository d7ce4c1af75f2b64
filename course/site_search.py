"""What the site's search shows of a page: its paragraphs by section, in a script, which a page opened by double click
may load. (Sphinx's own excerpts are fetched, which such a page may not do.) An extension of Sphinx."""

import json
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import desc_signature

TEXTS = "_static/search_texts.js"
PARTS = (nodes.paragraph, nodes.math_block, nodes.literal_block, nodes.definition_list_item, desc_signature)


def text(node):
    """A node's words in one line, its formulas between \\( and \\)."""
    if isinstance(node, nodes.math | nodes.math_block):
        formula = node.astext().removeprefix("\\[").removesuffix("\\]")
        return f"\\({formula.strip()}\\)"
    if isinstance(node, nodes.Text):
        return node.astext()
    between = ": " if isinstance(node, nodes.definition_list_item) else ""
    return between.join(text(child) for child in node.children)


def sections(doctree):
    """The sections of a page: lists of anchor, title, paragraphs and code. What a cell prints is left out."""
    found = {}
    for part in doctree.findall(lambda node: isinstance(node, PARTS)):
        words, section = " ".join(text(part).split()), part.parent
        while section and not isinstance(section, nodes.section):
            section = section.parent
        known = isinstance(part.parent, nodes.definition)  # it stands beside its term already
        if words and section and not known and "output" not in part["classes"]:
            _, prose, code = found.setdefault(section["ids"][0], (text(section.next_node(nodes.title)), [], []))
            (code if isinstance(part, nodes.literal_block) else prose).append(words)
    return [[anchor, *rest] for anchor, rest in found.items()]


def collect(app, doctree):
    if "nosearch" not in app.env.metadata[app.env.docname]:
        app.env.search_texts[app.env.docname] = sections(doctree)


def merge(app, env, docnames, other):
    env.search_texts |= {name: other.search_texts[name] for name in docnames if name in other.search_texts}


def write(app, exception):
    if exception is None:
        texts = json.dumps(app.env.search_texts, ensure_ascii=False, separators=(",", ":"))
        Path(app.outdir, TEXTS).write_text(f"const searchTexts = {texts};\n", encoding="utf-8")


def prepare_page(app, pagename, templatename, context, doctree):
    """The page of results gets the texts, the script that shows them, and MathJax for their formulas."""
    if pagename == "search":
        context["has_maths_elements"] = True
        app.add_js_file(TEXTS.removeprefix("_static/"))
        app.add_js_file("search.js")


def setup(app):
    app.connect("builder-inited", lambda app: vars(app.env).setdefault("search_texts", {}))
    app.connect("doctree-read", collect, priority=900)
    app.connect("env-merge-info", merge)
    app.connect("html-page-context", prepare_page, priority=400)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
