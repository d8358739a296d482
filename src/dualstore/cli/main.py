"""`dualstore …`: the commands together, each imported when it is asked for."""

from importlib import import_module
from importlib.metadata import version

import click

# Each is in a module of its name. Imported one by one: a command takes a second or more to import.
_COMMANDS = {
    "demo": "Migrate 28,000 airports under live traffic, with faults, and prove the result.",
    "init": "Write a migration plan, and a configuration where there is none.",
    "plan": "Show, carry out, resume and roll back a migration that is written down in a file.",
    "schema": "Create, upgrade or check the bookkeeping in both databases.",
    "doctor": "See that the deployment is fit for the migration.",
    "status": "Show where every table stands, and what the next gate asks.",
    "report": "Write all of that, over time, as one HTML file.",
    "dashboard": "Serve a page of where the migration stands, on 127.0.0.1; it only reads.",
    "dial": "Ask for another stage or percentage of a table, and wait until all follow.",
    "stop": "Send every read of a table to its authority, now.",
    "failover": "Have DynamoDB take over from a PostgreSQL that is gone, and reconcile later.",
    "monitor": "Judge what all processes report, tell what is wrong, and roll back.",
    "export": "Export a table to S3, without reading it.",
    "backfill": "Copy the history of a table.",
    "verify": "Compare both sides, whole and in both directions.",
    "repair": "Settle the keys that are recorded as doubtful.",
    "discrepancies": "Look at, repair or ignore confirmed differences.",
    "relay": "Bring both databases after each other, until it is stopped.",
    "serve": "Speak DynamoDB's protocol, for any SDK in any language.",
    "load": "Replay recorded access patterns against staging.",
    "dev": "Run both databases on this machine, for development, without Docker.",
}


class _Commands(click.Group):
    """A group whose commands are imported one by one; its methods are as click calls them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"dualstore.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("dualstore"), prog_name="dualstore")
def main() -> None:
    """Move a running service from DynamoDB to PostgreSQL.

    Every command ends with 0 when done, 1 when there are differences or a gate is not met, 2 on wrong
    usage, 3 when something could not be reached.
    """
