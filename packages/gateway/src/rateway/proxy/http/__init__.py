"""The proxy's socket: HTTP requests, the WebSockets of bots, and REST passed on to Discord."""
