"""The site of the documentation: `make docs`. Sphinx reads these pages; every warning is an error."""

import os.path
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import botformer

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "evidence": "results/EVIDENCE.md",
    "receipts": "results/RESULTS.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "nuclei_network": "src/botformer/weights/shipped/nuclei.md",
    "micrograph": "src/botformer/data/synthetic/bbbc038/PROVENANCE.md",
}
"""Pages of the site whose text stands elsewhere in the repository."""

project, author, copyright = "botformer", "the authors of botformer", "the authors of botformer, Apache-2.0"
version = release = botformer.__version__
sys.path.append(str(ROOT / "docs"))
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstring_names"]
root_doc = "index"
exclude_patterns = ["_build", "**.ipynb"]
highlight_language = "text"  # equations and shell lines; blocks of Python say so
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(torch|nn|np|numpy|PIL|matplotlib|collections|pathlib|typing)\..*|Tensor|Module"),
    ("py:.*", r"botformer\.(plots|create\.convert\.Model|backbone\.resnet\.Stages)\b.*"),
]
"""Other projects' names are not fetched; of ours, protocols and a type variable."""

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Position kinds", "params_style")]
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = "botformer"
html_math_renderer = "mathml"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_show_sourcelink = html_copy_source = False


def setup(app):
    # Formulas are MathML, which browsers draw by themselves: no script, and nothing is fetched.
    app.add_html_math_renderer("mathml", (_formula_in_a_line, None), (_formula, None))
    app.connect("source-read", _text_of_the_site)


def _text_of_the_site(app, page, source):
    """Links and images lead to pages of the site where there is one, to copies of single files, from folders nowhere.

    Where the words of a link are the name of a file, the site has the page's title instead: it shows no files."""
    file = ROOT / ELSEWHERE.get(page, f"docs/{page}.md")
    text = file.read_text(encoding="utf-8") if page in ELSEWHERE else source[0]
    here, pages = Path("docs", page).parent, {file: name for name, file in ELSEWHERE.items()}

    def link(match):
        words, target, anchor = match[1], match[2], match[3] or ""
        there = os.path.normpath(file.parent.relative_to(ROOT) / target)
        if "://" in target or not (ROOT / there).exists():
            return match[0]
        if (ROOT / there).is_dir():
            return words
        if there.endswith(".md") and Path(words).name == Path(there).name:
            words = _title(there)
        there = f"docs/{pages[there]}.md" if there in pages else there
        return f"[{words}]({os.path.relpath(there, here)}{anchor})"

    orphan = "---\norphan: true\n---\n\n" if page.startswith("decisions/0") else ""  # the index of decisions links them
    source[0] = orphan + re.sub(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()#\s]+)(#[^()\s]*)?\)", link, text)


def _title(page):
    """Up to its colon."""
    file = ROOT / ELSEWHERE.get(page.removeprefix("docs/").removesuffix(".md"), page)
    return re.search(r"^# ([^:\n]+)", file.read_text(encoding="utf-8"), re.MULTILINE)[1]


def _formula_in_a_line(self, node):
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _formula(self, node):
    self.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode
