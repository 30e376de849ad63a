"""A picture named `…-light.png` is shown as `…-dark.png` where the site is dark; a repository shows the light one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

LIGHT, DARK = "-light.png", "-dark.png"
BEFORE_PICTURES_ARE_COLLECTED = 400


def _add_dark(_: Sphinx, document: nodes.document) -> None:
    for light in list(document.findall(nodes.image)):
        if light["uri"].endswith(LIGHT):
            dark = light.deepcopy()
            dark["uri"] = light["uri"].removesuffix(LIGHT) + DARK
            light["classes"].append("only-light")
            dark["classes"].append("only-dark")
            light.parent.insert(light.parent.index(light) + 1, dark)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add what makes two of one."""
    app.connect("doctree-read", _add_dark, priority=BEFORE_PICTURES_ARE_COLLECTED)
    return {"parallel_read_safe": True}
