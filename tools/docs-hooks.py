"""What mkdocs.yml calls while it builds the site."""

import re

# Docstrings name code with Sphinx's roles (:meth:`run`); on the site only the name is shown.
ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(?=<code>)")


def on_page_content(html: str, **_: object) -> str:
    """Return a page's HTML without the names of roles."""
    return ROLE.sub("", html)
