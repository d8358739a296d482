"""`dualstore dial`: what it shows, whom it asks, where it sets flags, and whom it waits for."""

import io
import json
import textwrap

import pytest

from acceptance.test_command_line import created, run, service  # noqa: F401 - a fixture
from dualstore.cli import dial as command
from dualstore.cli import main
from unit.flags.launchdarkly_service import TOKEN, flag, running

STAGE, READ = "dualstore-cities-stage", "dualstore-cities-read-percent"
STAGES = ("off", "dualwrite", "shadow", "live", "rampdown", "complete")


class Terminal(io.StringIO):
    """A standard input with a person at it."""

    def isatty(self):
        return True


@pytest.fixture
def migrating(service):  # noqa: F811
    engine, module, _ = service
    assert run("schema", "upgrade").exit_code == 0
    created(engine, module)


@pytest.fixture
def launchdarkly(migrating, tmp_path, monkeypatch):
    """LaunchDarkly in the place of the flag file: what its REST API sets, its stream tells."""
    with running() as (ld, url):
        ld.put(flag(STAGE, *STAGES), flag(READ, 0))
        ld.rest_flag(STAGE, *STAGES, migrates="user")
        ld.rest_flag(READ, 0)
        configuration = tmp_path / "dualstore.toml"
        there = textwrap.dedent(f"""
            kind = "launchdarkly"
            base_uri = "{url}"
            stream_uri = "{url}"
            events_uri = "{url}"
            api_uri = "{url}"
            project = "shop"
            environment = "production"
        """)
        kept = configuration.read_text().replace('kind = "file"\npath = "flags.json"\n', there)
        assert 'kind = "launchdarkly"' in kept
        configuration.write_text(kept)
        monkeypatch.setenv("LAUNCHDARKLY_SDK_KEY", "sdk-key")
        monkeypatch.setenv("LAUNCHDARKLY_API_TOKEN", TOKEN)
        yield ld


def test_a_dial_shows_what_is_known_and_from_what_to_what_it_goes(migrating, tmp_path):
    dialled = run("dial", "cities", "--stage", "dualwrite", "--mirror-percent", "10", "--yes")
    assert dialled.exit_code == 0, dialled.output
    assert "0 reads compared: nothing is known" in dialled.output
    assert "stage off → dualwrite, mirror-percent 100 → 10" in dialled.output
    assert "confirmed by every process" in dialled.output
    assert json.loads((tmp_path / "flags.json").read_text())["flagValues"][STAGE] == "dualwrite"


def test_nobody_is_dialled_without_being_asked(migrating, tmp_path):
    refused = run("dial", "cities", "--stage", "dualwrite")
    assert (refused.exit_code, "--yes" in refused.output) == (2, True), refused.output
    assert "dualwrite" not in (tmp_path / "flags.json").read_text()


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("y\n", 0)])
def test_a_person_at_a_terminal_is_asked(migrating, tmp_path, monkeypatch, capsys, answer, code):  # noqa: PLR0917 - fixtures
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    with pytest.raises(SystemExit) as ended:
        main(["dial", "cities", "--stage", "dualwrite"])
    assert ended.value.code == code
    assert "Dial?" in capsys.readouterr().out
    assert ("dualwrite" in (tmp_path / "flags.json").read_text()) is (code == 0)


def test_a_refused_wish_is_taken_back_and_other_definitions_come_back(migrating, tmp_path):
    full = {"key": STAGE, "on": True, "variations": ["off"], "fallthrough": {"variation": 0}, "salt": "x"}
    flags = tmp_path / "flags.json"
    flags.write_text(json.dumps({"flags": {STAGE: full}, "flagValues": {"theirs": 1}}))
    refused = run("dial", "cities", "--stage", "live", "--yes")
    assert refused.exit_code == 1, refused.output
    assert json.loads(flags.read_text()) == {"flags": {STAGE: full}, "flagValues": {"theirs": 1}}


def test_launchdarkly_is_set_by_its_api_and_followed_by_its_stream(launchdarkly, monkeypatch):
    patched = launchdarkly.patched

    def published(key, patch):
        """As LaunchDarkly: what its API takes, its stream tells."""
        status, kept = patched(key, patch)
        environment = kept["environments"]["production"]
        values = [variation["value"] for variation in kept["variations"]]
        launchdarkly.patch(flag(key, *values, fallthrough=environment["fallthrough"]))
        return status, kept

    monkeypatch.setattr(launchdarkly, "patched", published)
    dialled = run("dial", "cities", "--stage", "dualwrite", "--yes")
    assert (dialled.exit_code, "stage dualwrite" in dialled.output) == (0, True), dialled.output
    refused = run("dial", "cities", "--stage", "live", "--yes")
    assert refused.exit_code == 1, refused.output
    assert launchdarkly.served(STAGE)["dualwrite"] == 100_000, "put back"
    assert TOKEN not in dialled.output + refused.output


def test_a_split_flag_is_named_where_time_runs_out(launchdarkly, monkeypatch):
    half = {"rollout": {"variations": [{"variation": n, "weight": 50_000} for n in (0, 1)]}}
    launchdarkly.put(flag(STAGE, *STAGES, fallthrough=half), flag(READ, 0))
    late = run("dial", "cities", "--stage", "dualwrite", "--yes", "--wait", "8")
    assert (late.exit_code, f"{STAGE} of table cities is split" in late.output) == (3, True), late.output


def test_the_token_is_asked_for_before_anything_is_opened(launchdarkly, monkeypatch):
    monkeypatch.delenv("LAUNCHDARKLY_API_TOKEN")
    monkeypatch.setattr(command, "opened", None)
    refused = run("dial", "cities", "--stage", "dualwrite", "--yes")
    assert (refused.exit_code, "LAUNCHDARKLY_API_TOKEN" in refused.output) == (2, True), refused.output


def test_status_says_why_flags_are_not_followed(migrating, tmp_path):
    flags = tmp_path / "flags.json"
    flags.write_text(json.dumps({"flagValues": {STAGE: "dualwrite", READ: "a lot"}}))
    shown = run("status")
    assert f"Flag {READ} of table cities is malformed: staying" in " ".join(shown.output.split())
    (told,) = json.loads(run("status", "--json").output)
    assert [READ in problem for problem in told["flag_problems"]] == [True]
