"""AMQP 0-9-1 of our own, as far as publishing with confirms needs it; asyncio's side of :mod:`rateway.delivery`.

``uri`` reads the broker's address, ``connection`` speaks to it, ``publisher`` carries a cluster's events and
keeps them until confirmed.
"""
