"""The rollout: plans, gates, monitoring. Nothing is here yet."""
