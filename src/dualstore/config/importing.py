"""What a configuration names is imported."""

from importlib import import_module
from typing import Any

from dualstore.errors import ConfigurationError


def import_object(path: str, *, setting: str = "import path") -> Any:
    """Import what a configuration names as `package.module:Name`.

    Args:
        path: the module, a colon, and the name inside it (dots descend further).
        setting: the dotted key that the path came from, for the message.

    Raises:
        ConfigurationError: the path is malformed, the module cannot be imported or lacks the name.
    """
    module_name, colon, attributes = path.partition(":")
    if not (module_name and colon and attributes):
        raise ConfigurationError(f'{setting}: write it as "package.module:Name"')
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{setting}: no module named {error.name}; install it, or start where it can be imported"
        ) from error
    except ImportError as error:
        raise ConfigurationError(f"{setting}: importing {module_name} failed; see the cause above") from error
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise ConfigurationError(
                f"{setting}: {module_name} has no {attributes}; check the name"
            ) from None
    return found
