"""What workers see on the wire (``docs/contract.md``). Pure."""
