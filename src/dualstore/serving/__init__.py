"""DynamoDB's wire protocol on 127.0.0.1, carried out by either database or by the router."""

from dualstore.serving.app import Application
from dualstore.serving.signatures import Credentials

__all__ = ["Application", "Credentials"]
