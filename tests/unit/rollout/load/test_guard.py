"""Where load may be put."""

import pytest

from dualstore.config import Configuration, PostgresSettings
from dualstore.errors import IllegalTransition
from dualstore.recording import place_hash
from dualstore.rollout.load import CONFIRMATION, require_another_place, require_staging
from dualstore.store.places import Places

ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders"
OTHER_ACCOUNT = ARN.replace("123456789012", "210987654321")
HERE = Places(ARN, "postgresql://db.prod:5432/app", "db.prod")
WORDS = CONFIRMATION.format(table="orders")


def configuration(environment) -> Configuration:
    settings = PostgresSettings.model_validate({"url": "postgresql://localhost/app"})
    return Configuration(postgres=settings, environment=environment)


def test_a_deployment_that_says_it_is_staging_may_be_loaded() -> None:
    require_staging(configuration("staging"))


@pytest.mark.parametrize("environment", ["production", None])
def test_any_other_is_refused_and_told_what_to_write(environment) -> None:
    with pytest.raises(IllegalTransition, match='environment = "staging"'):
        require_staging(configuration(environment))


@pytest.mark.parametrize("place", HERE.known)
def test_load_is_not_put_where_it_was_recorded(place: str) -> None:
    with pytest.raises(IllegalTransition, match=WORDS):
        require_another_place("orders", HERE, [place_hash("elsewhere"), place_hash(place)])


def test_the_same_table_in_another_account_is_another_place() -> None:
    require_another_place(
        "orders", HERE, [place_hash(OTHER_ACCOUNT), place_hash("postgresql://db.other:5432/app")]
    )


def test_a_place_that_cannot_be_told_may_be_the_one() -> None:
    unknown = Places(None, HERE.postgres, HERE.host)
    with pytest.raises(IllegalTransition, match="dynamodb:DescribeTable"):
        require_another_place("orders", unknown, [place_hash(OTHER_ACCOUNT)])
    require_another_place("orders", unknown, []), "what was written by hand was recorded nowhere"


def test_the_words_and_nothing_else_force_it() -> None:
    recorded = [place_hash(ARN)]
    require_another_place("orders", HERE, recorded, words=WORDS)
    for words in ("yes", WORDS.replace("orders", "users"), ""):
        with pytest.raises(IllegalTransition):
            require_another_place("orders", HERE, recorded, words=words)
