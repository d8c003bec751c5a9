"""docs/settings.md is what the table says."""

from __future__ import annotations

from pathlib import Path

from rateway.config.document import settings_page
from rateway.config.table import ROWS

PAGE = Path(__file__).parents[4] / "docs" / "settings.md"


def test_the_page_of_settings_is_written_from_the_table() -> None:
    assert PAGE.read_text("utf-8") == settings_page(), (
        "run: python -m rateway.config.document > docs/settings.md"
    )


def test_every_setting_stands_on_the_page() -> None:
    page = settings_page()
    assert all(f"| `{row.env}` | `{row.key}` |" in page for row in ROWS)
