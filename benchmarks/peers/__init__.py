"""Gateways in Rust and Go beside ours, in the same rounds; see ``__main__``."""
