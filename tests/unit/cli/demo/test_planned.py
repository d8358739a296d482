"""The demo's plan: that of the example, with other times at most."""

from pathlib import Path

from dualstore.cli.demo.example import example_folder
from dualstore.cli.demo.planned import PLAN, copy_plan
from dualstore.rollout import load_plan

EXAMPLE = example_folder() / "airports" / PLAN


def test_the_plan_of_the_demo_is_the_one_of_the_example(tmp_path: Path) -> None:
    copy_plan(EXAMPLE, tmp_path / PLAN, soak=None)
    assert load_plan(tmp_path / PLAN).digest == load_plan(EXAMPLE).digest


def test_only_its_soaks_are_shortened(tmp_path: Path) -> None:
    copy_plan(EXAMPLE, tmp_path / PLAN, soak="500ms")
    content, usual = load_plan(tmp_path / PLAN).content, load_plan(EXAMPLE).content
    soaks = [step["soak"] for stage in content["stages"] for step in stage["steps"] if "soak" in step]
    assert set(soaks) == {"500ms"}
    for stages in (content["stages"], usual["stages"]):
        for step in (step for stage in stages for step in stage["steps"] if "soak" in step):
            del step["soak"]
    assert content == usual
