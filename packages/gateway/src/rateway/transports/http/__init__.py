"""What does the gateway serve over HTTP, and to whom? A small, guarded server; the answers come from above.

Nothing is imported here: ``server`` brings aiohttp, which a gateway without HTTP does not load.
"""
