"""The gateway's HTTP server: small and guarded; the answers come from above.

Nothing is imported here: ``server`` brings aiohttp, which a gateway without HTTP does not load.
"""
