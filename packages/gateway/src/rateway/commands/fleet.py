"""`rateway fleet`: move clusters between the members of the running gateway's fleet."""

from __future__ import annotations

import argparse

from rateway.commands import running

SUMMARY = "move clusters between the members of the running gateway's fleet"
DESCRIPTION = """\
Gateways that were started with the same FLEET are one bot, whose clusters these members share. `rateway status` shows
the members and what each owns. Any member's gateway may be asked.

`move` asks for one cluster at another member: it is handed over as soon as no shard of the fleet is away, with its
sessions and without an identify, and stays there for an hour whatever the spread is. `drain` has a member hand all its
clusters over, one after the other, and gives it none while another member may have them, until `undrain` or its
restart: before a machine is emptied, say. A stop (SIGTERM) needs no drain: it hands over by itself.

`reshard` replaces the fleet's layout by that of this gateway's settings (SHARDS, or Discord's recommendation and
EXTRA_SHARDS; SHARDS_PER_CLUSTER), if the day has an identify for each shard. It ends every session.
"""
EPILOG = """\
examples:
  rateway fleet move 2 host-b-1f2e3d
  rateway fleet drain host-a-4c5b6a
  rateway fleet undrain host-a-4c5b6a
  rateway fleet reshard

exit codes: 0 done or begun, 1 refused (no such member or cluster), 69 no gateway answers, 78 wrong settings
"""
# The governor and the member answer within seconds, or do not.
PATIENCE_S = 20.0


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway fleet`."""
    running.add_options(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    move = actions.add_parser("move", help="move a cluster to a member")
    move.add_argument("cluster", type=int, metavar="CLUSTER", help="the cluster's number, from 1")
    move.add_argument("member", metavar="MEMBER", help="the member's name")
    drain = actions.add_parser("drain", help="have a member hand its clusters over and take none")
    undrain = actions.add_parser("undrain", help="have a drained member take part again")
    for action in (drain, undrain):
        action.add_argument("member", metavar="MEMBER", help="the member's name")
    actions.add_parser("reshard", help="take the number of shards that this gateway's settings say")


def run(options: argparse.Namespace) -> int:
    """Ask the gateway; the exit code."""
    words: list[object] = [] if options.action == "reshard" else [options.member]
    if options.action == "move":
        words = [options.cluster, options.member]
    return running.request(options, f"fleet-{options.action}", *words, patience=PATIENCE_S)
