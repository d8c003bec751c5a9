"""What does the gateway serve over HTTP, and to whom? A small, guarded server; the answers come from above."""

from rateway.transports.http.server import Answer, HttpServer, Limits, Route, Stream

__all__ = ["Answer", "HttpServer", "Limits", "Route", "Stream"]
