"""The cache. Pure: events change packed tables, queries read them; storage stays behind a small port."""
