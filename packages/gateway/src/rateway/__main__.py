"""The program: `rateway`, and `python -P -m rateway`, which does the same."""

import sys

from rateway import hardening

__all__ = ["main"]


def main() -> int:
    """Run what the command line asks for; the exit code."""
    # Before anything else is loaded that the working directory could have in its place.
    hardening.forget_working_directory()
    hardening.keep_memory_private()
    hardening.open_as_many_files_as_allowed()
    from rateway import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
