"""Finds and installs dynoxide, the DynamoDB stand-in that is closest to AWS."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from dualstore.errors import ConfigurationError, Unavailable

VERSION = "1.2.1"
PATH_VARIABLE = "DUALSTORE_DYNOXIDE"

# The npm packages that each hold one static binary, by `sys.platform` and `platform.machine()`.
# Source: optionalDependencies of the npm package `dynoxide`.
_PACKAGES = {
    ("linux", "x86_64"): "@dynoxide/linux-x64",
    ("linux", "aarch64"): "@dynoxide/linux-arm64",
    ("darwin", "x86_64"): "@dynoxide/darwin-x64",
    ("darwin", "arm64"): "@dynoxide/darwin-arm64",
}
_INSTALL_SECONDS = 300


def find_dynoxide() -> Path | None:
    """The dynoxide binary, if there is one.

    Looked for in the environment's `DUALSTORE_DYNOXIDE`, then where `install_dynoxide` puts it,
    then on the PATH (last, for its version is anyone's guess).

    Raises:
        ConfigurationError: `DUALSTORE_DYNOXIDE` names no executable.
    """
    if named := os.environ.get(PATH_VARIABLE):
        if not os.access(named, os.X_OK):
            raise ConfigurationError(f"{PATH_VARIABLE} names {named}, which is not an executable file")
        return Path(named)
    installed = _installed()
    if installed is not None and installed.exists():
        return installed
    on_path = shutil.which("dynoxide")
    return None if on_path is None else Path(on_path)


def install_dynoxide() -> Path:
    """Installs the binary from npm into the user's cache directory, unless it is there already.

    Returns:
        The binary.

    Raises:
        ConfigurationError: npm is missing, or there is no binary for this machine.
        Unavailable: npm failed; the message holds the end of what it said.
    """
    target = _installed()
    if target is None:
        raise ConfigurationError(f"there is no dynoxide for {sys.platform} on {platform.machine()}")
    if target.exists():
        return target
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigurationError(
            f"npm is not installed, and dynoxide {VERSION} comes from it; "
            f"install npm, or name the binary in {PATH_VARIABLE}"
        )
    _cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_cache()) as staging:
        _npm_install(npm, Path(staging))
        # Into place at once, so that two installations at a time do no harm.
        source, goal = Path(staging) / "node_modules", _prefix() / "node_modules"
        goal.parent.mkdir(exist_ok=True)
        try:
            source.rename(goal)
        except OSError:
            if not target.exists():  # nobody else was faster
                raise
    return target


def _npm_install(npm: str, prefix: Path) -> None:
    package = f"{_PACKAGES[sys.platform, platform.machine()]}@{VERSION}"
    done = subprocess.run(  # noqa: S603 - npm, and a package named above
        [npm, "install", "--no-save", "--no-audit", "--no-fund", "--prefix", prefix, package],
        cwd=prefix,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_INSTALL_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        said = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise Unavailable(f"npm could not install {package}:\n{said}")


def _installed() -> Path | None:
    package = _PACKAGES.get((sys.platform, platform.machine()))
    return None if package is None else _prefix() / "node_modules" / package / "dynoxide"


def _prefix() -> Path:
    return _cache() / f"dynoxide-{VERSION}"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dualstore"
