"""The command line on a deployment, at a place from which some databases cannot be reached."""

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from click.testing import CliRunner, Result

from dualstore.cli import main
from dualstore.stages import Side
from integration.deployment import REGION, Deployment, order_model, order_row
from integration.writing import NAME

NOBODY = {Side.DYNAMODB: "http://127.0.0.1:9", Side.POSTGRES: "postgresql://nobody@127.0.0.1:9/none"}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "dualstore", "AWS_SECRET_ACCESS_KEY": "dualstore"}


@dataclass(frozen=True)
class CommandLine:
    """Runs `dualstore` on one table, which goes by `NAME`.

    Attributes:
        deployment: the two databases.
        table: the physical name.
        folder: where the configuration is written.
        more: further lines of the configuration.
        environment: of the command.
    """

    deployment: Deployment
    table: str
    folder: Path
    more: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: CREDENTIALS)

    def __call__(self, command: str, *arguments: str, lost: Collection[Side] = ()) -> Result:
        """Run a command on the table.

        Args:
            command: such as `stop`.
            *arguments: what follows the table's name.
            lost: the databases that are out of reach.
        """
        config = self.folder / "dualstore.toml"
        config.write_text(self._configuration(lost))
        arguments = (command, NAME, *arguments, "--config", str(config))
        return CliRunner(env=self.environment).invoke(main, arguments)

    def _models(self) -> str:
        """A module with the table's models, which commands can import."""
        name = f"models_of_{self.table.replace('-', '_')}"
        if name not in sys.modules:
            sys.modules[name] = module = ModuleType(name)
            module.Order = order_model(self.table, self.deployment.endpoint_url)  # type: ignore[attr-defined]
            module.OrderRow = order_row(self.table.replace("-", "_"))  # type: ignore[attr-defined]
        return name

    def _configuration(self, lost: Collection[Side]) -> str:
        postgres = self.deployment.engine.url.render_as_string(hide_password=False)
        urls = {Side.DYNAMODB: self.deployment.endpoint_url, Side.POSTGRES: postgres.replace("+psycopg", "")}
        urls |= {side: NOBODY[side] for side in lost}
        return (
            f'[postgres]\nurl = "{urls[Side.POSTGRES]}"\n'
            f'[dynamodb]\nendpoint_url = "{urls[Side.DYNAMODB]}"\nregion = "{REGION}"\n'
            f'bookkeeping_table = "{self.deployment.bookkeeping}"\n'
            f'[tables.{NAME}]\nmodel = "{self._models()}:Order"\nrow = "{self._models()}:OrderRow"\n'
            f"{self.more}"
        )
