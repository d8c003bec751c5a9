"""A fake Discord to develop and test bots against: `rateway simulate`.

`Simulator` runs it inside a process, `rateway simulate` as a command; `docs/simulator.md` describes both.
"""

__version__ = "0.3.0"
