"""Settings of the documentation: `make docs` builds it with Sphinx and myst-nb.

Notebooks, the API's pages, the command line's help and the result tables are made anew from their sources at every
build (`_ext/pages.py`), so that nothing is written down twice. Notebooks are shown as stored, never run.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import pages

import cascadeclip

project = "cascadeclip"
author = "The cascadeclip developers"
copyright = author
version = release = cascadeclip.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "docstrings",
    "mathml",
    "messages",
    "slides",
    "playground",
]
exclude_patterns = ["_build", "slides/*.md"]  # slides are pages of their own (`_ext/slides.py`)

# --- texts ------------------------------------------------------------------------------------------------------------
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # the stored outputs are those that the tests compare
html_math_renderer = "mathml"
suppress_warnings = [
    "misc.highlighting_failure",  # shell magics in notebook cells are no Python
    "myst.header",  # the assignments number their exercises two levels down, as nbgrader's pages show them
]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# --- the API ----------------------------------------------------------------------------------------------------------
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_rtype = False
napoleon_preprocess_types = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
default_role = "py:obj"  # `name` in a docstring is code, and a link if it is a public name
nitpicky = True  # links to names that are not there are errors, but
nitpick_ignore_regex = [
    ("py:obj", ".*"),  # a docstring puts arguments, files and values in backticks, too
    ("py:(class|exc|meth|func|data)", r"(?!cascadeclip).*"),  # names of other packages
]

# --- the looks --------------------------------------------------------------------------------------------------------
html_theme = "furo"
html_title = f"cascadeclip {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["subscripts.js"]
html_copy_source = html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5f8b", "color-brand-content": "#1f5f8b"},
    "dark_css_variables": {"color-brand-primary": "#7fb9e6", "color-brand-content": "#7fb9e6"},
}


def setup(app):
    pages.write(Path(app.srcdir))
    app.connect("missing-reference", pages.to_public_name)
