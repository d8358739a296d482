"""Builds the extension module against the limited API: one wheel for Python 3.11 and everything after it."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "dualstore_accelerator",
            ["src/binary_rows.c", "src/dualstore_accelerator.c", "src/fingerprints.c", "src/row_order.c"],
            depends=["src/binary_rows.h", "src/fingerprints.h", "src/postgres_types.h", "src/row_order.h"],
            extra_compile_args=["-O3", "-Wall", "-Wextra"],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
