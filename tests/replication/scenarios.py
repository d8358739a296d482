"""Scenarios: what a chooser plays through, and the invariants that it is to break."""

from collections.abc import Callable

from replication.scenarios_inward import (
    batches,
    copying,
    copying_again,
    copying_over,
    copying_what_goes,
    cut_off,
    deferring,
    dialled,
    expiring,
    listing,
    many_keys,
    outage,
    slow_agents,
    strangers,
    stream_as_journal,
    thieves,
    transacting,
    verified,
    whole,
)
from replication.scenarios_of_one_key import (
    counting,
    crashing,
    creating,
    dense,
    journalled,
    late_mirror,
    preloaded,
    pruning,
    recreation,
    rewriting,
    streamed,
)
from replication.scenarios_outward import (
    creations,
    cut_stream,
    deferred_moves,
    draining,
    everything_late,
    expiring_live,
    failing_over,
    flipping,
    forgotten_tokens,
    given_up,
    late_to_live,
    late_to_return,
    many_keys_move,
    moving_on,
    outward,
    sleeping_senders,
    sweeping,
)
from replication.simulation import Choose

Scenario = Callable[[Choose], list[str]]
"""Plays one schedule, and names the invariants that do not hold at its end."""


def _by_name(*scenarios: Scenario) -> dict[str, Scenario]:
    return {scenario.__name__: scenario for scenario in scenarios}


OF_ONE_KEY = _by_name(
    dense,
    late_mirror,
    crashing,
    streamed,
    recreation,
    pruning,
    preloaded,
    rewriting,
    journalled,
    counting,
    creating,
)
"""Those that take a tenth of the time of others."""

SCENARIOS = OF_ONE_KEY | _by_name(
    dialled,
    transacting,
    outage,
    slow_agents,
    listing,
    batches,
    whole,
    many_keys,
    stream_as_journal,
    strangers,
    thieves,
    cut_off,
    deferring,
    expiring,
    verified,
    copying,
    copying_over,
    copying_what_goes,
    copying_again,
    outward,
    sweeping,
    creations,
    sleeping_senders,
    everything_late,
    forgotten_tokens,
    flipping,
    moving_on,
    late_to_live,
    late_to_return,
    draining,
    given_up,
    cut_stream,
    deferred_moves,
    expiring_live,
    many_keys_move,
    failing_over,
)
"""All of them."""
