"""`dualstore …`: the commands together."""

from importlib.metadata import version

import click

from dualstore.cli.backfill import backfill
from dualstore.cli.dashboard import dashboard
from dualstore.cli.demonstrate import demo
from dualstore.cli.dev import dev
from dualstore.cli.dial import dial
from dualstore.cli.discrepancies import discrepancies
from dualstore.cli.doctor import doctor
from dualstore.cli.export import export
from dualstore.cli.failover import failover
from dualstore.cli.init import init
from dualstore.cli.load import load
from dualstore.cli.monitor import monitor
from dualstore.cli.plan import plan
from dualstore.cli.relay import relay
from dualstore.cli.report import report
from dualstore.cli.schema import schema
from dualstore.cli.serve import serve
from dualstore.cli.status import status
from dualstore.cli.stop import stop
from dualstore.cli.tables import repair
from dualstore.cli.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("dualstore"), prog_name="dualstore")
def main() -> None:
    """Move a running service from DynamoDB to PostgreSQL.

    Every command ends with 0 when done, 1 when there are differences or a gate is not met, 2 on wrong
    usage, 3 when something could not be reached.
    """


for each in (
    demo,
    init,
    plan,
    schema,
    doctor,
    status,
    report,
    dashboard,
    dial,
    stop,
    failover,
    monitor,
    export,
    backfill,
    verify,
    repair,
    discrepancies,
    relay,
    serve,
    load,
    dev,
):
    main.add_command(each)
