"""Discord's gateway vocabulary (``discord``) and the wire contract of rateway's workers (``contract``)."""

__version__ = "0.3.0"
