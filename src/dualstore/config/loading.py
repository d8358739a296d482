"""A configuration is read: the file, overlaid by environment variables, checked before any other I/O."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from dualstore.config.configuration import Configuration
from dualstore.errors import ConfigurationError

DEFAULT_FILE = "dualstore.toml"
ENVIRONMENT_PREFIX = "DUALSTORE_"
NESTING_DELIMITER = "__"


class _Sources(BaseSettings, Configuration):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Merges what the file says (passed in) with the environment, which wins."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter=NESTING_DELIMITER,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - unused: no second file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - unused: secrets come by variable
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


def load(path: str | Path | None = None) -> Configuration:
    """Read and check the configuration.

    Environment variables win over the file: `DUALSTORE_POSTGRES__URL` is `url` in `[postgres]`.

    Args:
        path: the TOML file. None reads `dualstore.toml` of the working directory where there is one,
            and else the environment alone. A relative `flags.path` is relative to this file.

    Raises:
        ConfigurationError: names the file or variable, the dotted key and what to do; never a value.
    """
    file = Path(DEFAULT_FILE if path is None else path)
    document = _document(file, required=path is not None)
    try:
        merged = _Sources(**{"postgres": {}, **document})
    except ValidationError as invalid:
        raise ConfigurationError(_explained(invalid, file)) from None
    except SettingsError as invalid:
        # Its cause quotes the variable's text, which may be a secret.
        raise ConfigurationError(
            f"{ENVIRONMENT_PREFIX}…: {invalid}; set single keys, as in DUALSTORE_POSTGRES__URL"
        ) from None
    return Configuration(**dict(merged))


def _document(file: Path, *, required: bool) -> dict[str, Any]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise ConfigurationError(f"{file}: no such file; create it or name another one") from None
        return {}
    except OSError as error:
        raise ConfigurationError(
            f"{file}: cannot be read ({error.strerror}); check its permissions"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "not UTF-8"
        raise ConfigurationError(f"{file}: not a TOML document: {reason}; correct that place") from None
    flags = document.get("flags")
    if isinstance(flags, dict) and isinstance(flags.get("path"), str):
        flags["path"] = str(file.parent / flags["path"])
    recording = document.get("recording")
    if isinstance(recording, dict) and isinstance(recording.get("directory"), str):
        recording["directory"] = str(file.parent / recording["directory"])
    return document


def _explained(invalid: ValidationError, file: Path) -> str:
    """One line per mistake: where, what, how to mend it."""
    errors = invalid.errors(include_input=False, include_context=False, include_url=False)
    return "\n".join(_explained_error(error, file) for error in errors)


_REMEDY: Mapping[str, str] = {
    "missing": "set it there, or as {variable} in the environment",
    "extra_forbidden": "remove it, or correct its spelling",
    "string_pattern_mismatch": 'write letters, digits, - and _ (a model as "package.module:Name")',
}


def _explained_error(error: ErrorDetails, file: Path) -> str:
    steps = [str(step) for step in error["loc"] if step != "[key]"]
    key = ".".join(steps) or "the whole document"
    variable = ENVIRONMENT_PREFIX + NESTING_DELIMITER.join(steps).upper()
    is_set = any(name.upper() == variable for name in os.environ)
    source = f"environment variable {variable}" if is_set else str(file)
    remedy = _REMEDY.get(error["type"], "correct it").format(variable=variable)
    return f"{source}: {key}: {error['msg'].removeprefix('Value error, ')}; {remedy}"
