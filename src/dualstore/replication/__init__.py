"""Replication: every write at the authority, then on the mirror, so that both provably converge."""
