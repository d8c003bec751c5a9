"""`rateway drain`: the running gateway gives one cluster up, for another gateway to take."""

from __future__ import annotations

import argparse

from rateway.commands import running

SUMMARY = "give one cluster of the running gateway up for another to take"
DESCRIPTION = """\
Let the running gateway stop reading one cluster's shards, wait for the broker to confirm what is out, close the
connections in a way that keeps the sessions, and give up the cluster's inbound queue; answer when that is done. A
second gateway that waits for the cluster takes it over at once. The other clusters go on undisturbed.

Once begun it goes on, also when this command is interrupted. A restart of the gateway runs the cluster again, unless
another gateway has it by then or CLUSTERS leaves it out.
"""
EPILOG = """\
examples:
  rateway drain 2                        before a machine is emptied, cluster by cluster
  rateway drain 2 -c /etc/rateway.toml

exit codes: 0 it is given up, 1 refused (no such cluster), 69 no gateway answers, 78 wrong settings
"""
# STOP_TIMEOUT is how long confirms are waited for: ten minutes at most.
PATIENCE_S = 630.0


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway drain`."""
    running.add_options(parser)
    parser.add_argument("cluster", type=int, metavar="CLUSTER", help="the cluster's number, from 1")


def run(options: argparse.Namespace) -> int:
    """Ask the gateway; the exit code."""
    return running.request(options, "drain", options.cluster, patience=PATIENCE_S)
