"""The site of the documentation: `make docs`. Sphinx reads these pages; every warning is an error."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import botformer

project, author, copyright = "botformer", "the authors of botformer", "the authors of botformer, Apache-2.0"
version = release = botformer.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "botformer"
html_math_renderer = "mathml"


def _inline(self, node):
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _block(self, node):
    self.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    # Formulas are MathML, which browsers draw by themselves: no script, and nothing is fetched.
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
