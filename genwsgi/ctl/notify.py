"""``genwsgictl notify``: one order to all hosts that listen to a broker."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import os
import sys
import uuid
from collections.abc import Iterable
from typing import Any, Final

from genwsgi.ctl.command import Exit, complain, count
from genwsgi.ctl.conductor import Conductor, Host
from genwsgi.ctl.render import Line, Screen
from genwsgi.ctl.table import LiveTable
from genwsgi.ctl.words import span
from genwsgi.errors import OptionError
from genwsgi.triggers.amqp.message import Refusal, read
from genwsgi.triggers.amqp.settings import EXCHANGE, from_options

#: Where the URL is taken from if the command line has none.
URL_VARIABLE = "GENWSGI_AMQP"

HEAD: Final = ("HOST", "SERVER", "STATE", "RELEASE", "GENERATION", "TOOK", "WHY")

DESCRIPTION = """\
Order a deploy on every host that listens to a broker. Without --path each reads
anew what it imports from now; with it each imports from that folder first, from
now on.
"""

EPILOG = """\
examples:
  genwsgictl notify --amqp amqps://mq.example/ --key-file key --wait
  genwsgictl notify --path /srv/shop/v42 --all-or-none --expect 4

exit status:
  0    the broker has taken the order; with --wait or --all-or-none: every host
       has gone live with it
  1    not every host has, or the broker can't be used
  2    the command line can't be obeyed
  130  interrupted (Ctrl-C): the waiting has ended, the order goes on
"""


def add_to(commands: Any) -> None:
    """Add the subcommand to a parser's."""
    parser = commands.add_parser(
        "notify",
        help="order a deploy on all hosts",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, several = parser.add_argument, "may be given several times"
    add("--amqp", metavar="URL", help=f"the broker; ${URL_VARIABLE} unless given")
    add("--amqp-exchange", metavar="NAME", default=EXCHANGE, help="[%(default)s]")
    add("--amqp-ca", metavar="FILE", help="who vouches for the broker's certificate (TLS)")
    add("--amqp-cert", metavar="FILE", help="the certificate to show the broker (TLS)")
    add("--amqp-key", metavar="FILE", help="the key of that certificate, if in another file (TLS)")
    add("--key-file", metavar="FILE", help="sign with the first key of this file")
    add("--module", metavar="NAME", action="append", default=[], help=f"what changed; {several}")
    add("--path", metavar="DIR", help="the folder, on the hosts, to import from first from now on")
    add("--release", metavar="TEXT", help="what is deployed, for people")
    add("--target", metavar="MODULE[:NAME]", help="only hosts that serve this obey")
    add("--wait", action="store_true", help="show how it goes on every host until all are done")
    add(
        "--all-or-none",
        action="store_true",
        help="prepare it everywhere; then all go live, or none",
    )
    add("--expect", metavar="N", type=count, help="so many hosts are all; else who answers in 1 s")
    add("--timeout", metavar="SECONDS", type=_seconds, default=60.0, help="[%(default)g]")
    add("--json", action="store_true", help="for programs: one object in a line")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Give the order; return the exit status.

    :raises OptionError: the options can't be used.
    """
    url = options.amqp or os.environ.get(URL_VARIABLE)
    if not url:
        raise OptionError(f"which broker? Add --amqp URL, or set {URL_VARIABLE}")
    given = {
        "amqp": url,
        "amqp_exchange": options.amqp_exchange,
        "amqp_key_file": options.key_file,
        "amqp_ca": options.amqp_ca,
        "amqp_cert": options.amqp_cert,
        "amqp_key": options.amqp_key,
    }
    settings = from_options(given, listens=False)
    assert settings is not None, "there is a URL"
    if options.expect and not (options.wait or options.all_or_none):
        raise OptionError("--expect says for how many to wait: add --wait or --all-or-none")
    order = _order(options)
    from genwsgi.ctl.sender import Sender  # pika, which no other subcommand needs

    logging.getLogger("pika").setLevel(logging.CRITICAL)  # the sender says it in one line
    conductor = Conductor(
        uuid.uuid4().hex,
        wait=options.wait,
        all_or_none=options.all_or_none,
        expect=options.expect,
        timeout=options.timeout,
    )
    screen = Screen(sys.stdout, as_json=options.json, to_the_end=True)
    table = LiveTable(screen, HEAD)
    interrupted = False
    with screen.drawing():
        sender = Sender(
            settings,
            conductor,
            order,
            news=lambda: table.show(rows(conductor.hosts.values())),
            say=complain,
        )
        try:
            sender.run(options.timeout)
        except KeyboardInterrupt:
            interrupted = True
            sender.call_off()
        table.show(rows(conductor.hosts.values()))
    hosts = [dataclasses.asdict(host) for host in conductor.hosts.values()]
    screen.tell({"order": conductor.order, "problem": conductor.problem, "hosts": hosts})
    if conductor.problem:
        complain(f"order {conductor.order}: {conductor.problem}")
        return Exit.INTERRUPTED if interrupted and conductor.ordered else Exit.NOT_DONE
    taken = f" by {len(conductor.hosts)} hosts" if conductor.hosts else " by the broker"
    screen.show(Line(f"order {conductor.order}: taken{taken}"))
    return Exit.DONE


def rows(hosts: Iterable[Host]) -> dict[tuple[str, str], tuple[str, ...]]:
    """How hosts stand, in words."""
    return {
        (host.host, host.server): (
            host.host,
            host.server,
            host.state,
            "" if host.release is None else f"release {host.release}",
            "" if host.generation is None else f"generation {host.generation}",
            span(host.took) if host.took else "",
            host.error,
        )
        for host in hosts
    }


def _order(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the order says, and refuse here what every host would refuse."""
    path = options.path and os.path.abspath(options.path)
    order: dict[str, Any] = {
        "model_path": options.module[0] if options.module else "",
        "is_append_path": bool(path),
    }
    if path:
        order["physical_path"] = path
    if len(options.module) > 1:
        order["modules"] = options.module
    for name in ("release", "target"):
        if getattr(options, name):
            order[name] = getattr(options, name)
    try:
        read(order)
    except Refusal as refusal:
        raise OptionError(f"no host would obey this order: {refusal.reason}") from refusal
    return order


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 3000 or math.isnan(seconds):
        raise argparse.ArgumentTypeError("above 0 and at most 3000 seconds")
    return seconds
