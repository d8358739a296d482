"""The actions that a plan may name, each with its checks and its way back; importing registers them."""

from dualstore.rollout.actions import authority, cleanup, data, preparation, traffic
from dualstore.rollout.registry import register

STANDARD = (
    preparation.VERIFY_DATABASE_CONNECTION,
    preparation.BACKUP_DYNAMODB,
    preparation.RUN_SCHEMA_MIGRATIONS,
    data.START_DUAL_WRITING,
    data.MIGRATE_HISTORICAL_DATA,
    data.VERIFY_DATA_INTEGRITY,
    traffic.ENABLE_FEATURE_FLAG,
    traffic.GRADUAL_TRAFFIC_INCREASE,
    traffic.MONITOR_ERROR_RATES,
    authority.FLIP_AUTHORITY,
    authority.RAMPDOWN,
    cleanup.VERIFY_ALL_TRAFFIC_POSTGRES,
    authority.STOP_DUAL_WRITING,
    cleanup.BACKUP_VERIFICATION,
)
"""In the order in which a migration takes them."""

for each in STANDARD:
    register(each)
