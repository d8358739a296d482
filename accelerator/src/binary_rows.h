/* The third type of this module: see binary_rows.c. */

#ifndef DUALSTORE_BINARY_ROWS_H
#define DUALSTORE_BINARY_ROWS_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* one wheel for Python 3.11 and everything after it */
#include <Python.h>

/* Add the type `BinaryRows` to the module: -1 with an exception set where that fails. */
int add_binary_rows(PyObject *module);

#endif
