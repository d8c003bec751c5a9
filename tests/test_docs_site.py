"""`make docs` builds a site of all pages, and refuses a broken link."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the dependency group docs is not installed")
pytest.importorskip("mkdocstrings", reason="the dependency group docs is not installed")

ROOT = Path(__file__).parent.parent


def test_the_site_has_every_page_and_the_clients_reference_and_a_broken_link_fails() -> None:
    subprocess.run([sys.executable, ROOT / "tools/docs"], check=True, capture_output=True, timeout=250)
    pages = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/decisions/*.md")]
    # A README is its folder's index.
    missing = [
        page.name
        for page in pages
        if not (ROOT / "site" / page.relative_to(ROOT).with_suffix(".html")).exists()
        and not (
            page.name == "README.md"
            and (ROOT / "site" / page.parent.relative_to(ROOT) / "index.html").exists()
        )
    ]
    assert missing == []
    reference = (ROOT / "site/docs/client_reference.html").read_text()
    assert 'id="rateway_client.Worker.run"' in reference and ":meth:" not in reference
    (ROOT / "build/docs/docs/amqp.md").write_text("[nowhere](nowhere.md)\n")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and "nowhere.md" in done.stderr + done.stdout
