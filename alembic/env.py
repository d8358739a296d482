"""Runs the migrations of the `dualstore` schema on the connection that `dualstore.schema` hands over."""

from alembic import context

from dualstore.schema import configure

configure(context)
with context.begin_transaction():
    context.run_migrations()
