"""What sets the flags that a configuration follows."""

import os
from collections.abc import Callable
from typing import Protocol, Unpack

from pydantic import SecretStr

from dualstore.config import Configuration
from dualstore.errors import ConfigurationError
from dualstore.flags.configured import flag_file_of, identity_of
from dualstore.flags.conventions import FLAGS, Wishes
from dualstore.flags.launchdarkly_api import TOKEN_VARIABLE, LaunchDarklyApi


class FlagSetter(Protocol):
    """Asks for another stage or other percentages where the flags are kept."""

    def set(self, table: str, **wishes: Unpack[Wishes]) -> Callable[[], None]:
        """Ask for something else; what is not named stays.

        Args:
            table: the table's logical name.
            wishes: any of `stage`, `postgres_read_percent`, `mirror_percent`, `shadow_percent`.

        Returns:
            What puts these flags back as they were, when called.

        Raises:
            ConfigurationError: it cannot be set; the message says why.
            Unavailable: where the flags are kept cannot be reached.
        """
        ...


def setter_of(configuration: Configuration) -> FlagSetter:
    """What sets the flags of a configuration; does no I/O yet.

    Raises:
        ConfigurationError: the flags are in the configuration itself, or what LaunchDarkly's REST API needs
            is missing.
    """
    settings = configuration.flags
    if settings.kind == "file":
        return flag_file_of(settings)
    if settings.kind == "static":
        keys = ", ".join(flag.suffix for flag in FLAGS)
        raise ConfigurationError(
            f"flags.kind is 'static': set {keys} in the configuration, in [tables.<name>.static], and restart"
        )
    if settings.project is None or settings.environment is None:
        raise ConfigurationError(
            "flags.project, flags.environment: both are needed to set flags in LaunchDarkly; name them by key"
        )
    token = SecretStr(os.environ.get(TOKEN_VARIABLE, ""))
    if not token.get_secret_value():
        raise ConfigurationError(
            f"{TOKEN_VARIABLE} is not set; put an access token there that may update flags"
        )
    return LaunchDarklyApi(
        token,
        project=settings.project,
        environment=settings.environment,
        base_uri=settings.api_uri,
        identity=identity_of(settings),
    )
