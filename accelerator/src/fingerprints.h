/* The other type of this module: see fingerprints.c. */

#ifndef DUALSTORE_FINGERPRINTS_H
#define DUALSTORE_FINGERPRINTS_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* one wheel for Python 3.11 and everything after it */
#include <Python.h>

/* Add the type `Fingerprints` to the module: -1 with an exception set where that fails. */
int add_fingerprints(PyObject *module);

#endif
