"""The documentation's site: `make docs`.

Its source is the whole repository, so that a link from one Markdown file to another is the same in both. A link that
leads nowhere, and a page that nobody can get to, are errors.
"""

import sys
import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]
_PROJECT = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = _PROJECT["name"]
author = _PROJECT["authors"][0]["name"]
release = _PROJECT["version"]

root_doc = "docs/index"
include_patterns = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "bench/RESULTS.md",
    "docs/**.md",
    "examples/README.md",
    "integration_test/**.md",
    "otel/METRICS.md",
]
exclude_patterns = [".*", "build", "dist"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "dark_pictures", "reference"]

suppress_warnings = ["misc.highlighting_failure"]  # "…" in a block stands for what is the reader's own
nitpick_ignore_regex = [("py:class", ".*")]  # annotations name types that are no part of what is offered
default_role = "code"  # docstrings are plain text with `names`

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
highlight_language = "text"

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"

html_theme = "furo"
html_title = f"{project} {release}"
html_extra_path = ["_site"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_search_scorer = str(FOLDER / "_static/scorer.js")
html_favicon = "../reactive_orch/http/static/icon.svg"
html_copy_source = False
html_show_copyright = False
smartquotes = False  # quotes and dashes are as they were typed: some are to be typed again
