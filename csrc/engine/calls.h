/* What the functions of Python in calls.c and directions.c share: arrays as programs take them, and how a function is made. */
#ifndef FASTNET_CALLS_H
#define FASTNET_CALLS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL fastnet_numpy
#ifndef IMPORTS_NUMPY /* which one file of the extension does */
#define NO_IMPORT_ARRAY
#endif
#include <float.h>
#include <numpy/arrayobject.h>
#include <stdlib.h>
#include <string.h>

#include "engine/fastnet.h"
#include "engine/gather.h"

enum { MAX_ROW_DIMS = 15, MAX_COUNTERS = 4 };

/* Rows of arrays as a program reads or writes them. */
typedef struct {
    int dims;
    npy_intp dim[MAX_ROW_DIMS];
    int64_t size; /* elements of a row */
} row_shape;

/* The rows of an array. */
typedef struct {
    PyArrayObject *array;
    char *data;
    int64_t rows, kind;
    int contiguous;
} rows_of;

/* A number in a Python object's __dict__ that a call increments. The dict is NULL if the caller passes it: an object that
 * owns the function would otherwise own itself, and Python's garbage collector does not look into functions. */
typedef enum {
    COUNTED,        /* nothing else */
    COUNTS_DRAWS,   /* it selects the step of random draws */
    COUNTS_NUMBERS, /* it selects the row of an update's table of numbers, whose first row is for `first` */
} counted_as;

typedef struct {
    PyObject *dict, *key;
    counted_as as;
    long long first, value;
} counter;

/* What all functions have in common; it comes first in the struct of each. */
typedef struct {
    PyTypeObject *array_type;
    PyObject *kept; /* alive as long as the function */
    int64_t dtype;
    int64_t numbers; /* rows of the table */
    int counters;
    counter count[MAX_COUNTERS];
} common;

static inline int kind_of(int type_num) {
    switch (type_num) {
    case NPY_FLOAT32:
        return FN_FLOAT32;
    case NPY_FLOAT64:
        return FN_FLOAT64;
    case NPY_UINT8:
        return FN_UINT8;
    case NPY_INT64:
        return FN_INT64;
    default:
        return -1;
    }
}

/* The rows of an object that is exactly an ndarray, aligned and in native byte order, with rows of this shape; 0 for
 * any other. */
static inline int rows_in(const common *c, PyObject *object, const row_shape *row, rows_of *found) {
    if (Py_TYPE(object) != c->array_type)
        return 0;
    PyArrayObject *array = (PyArrayObject *)object;
    if (PyArray_NDIM(array) != row->dims + 1 || !PyArray_ISALIGNED(array) || !PyArray_ISNOTSWAPPED(array))
        return 0;
    const npy_intp *shape = PyArray_DIMS(array);
    for (int i = 0; i < row->dims; i++)
        if (shape[i + 1] != row->dim[i])
            return 0;
    *found = (rows_of){array, PyArray_BYTES(array), shape[0], kind_of(PyArray_TYPE(array)), PyArray_IS_C_CONTIGUOUS(array)};
    return found->kind >= 0;
}

/* Convert one row of any strides to the dtype. */
static inline void convert_row(const rows_of *from, const row_shape *row, int64_t dtype, const char *data, char *to) {
    const npy_intp *strides = PyArray_STRIDES(from->array) + 1;
    npy_intp at[MAX_ROW_DIMS] = {0};
    for (int64_t i = 0; i < row->size; i++) {
        const char *p = data;
        for (int d = 0; d < row->dims; d++)
            p += at[d] * strides[d];
        const double value = from->kind == FN_FLOAT64   ? *(const double *)p
                             : from->kind == FN_FLOAT32 ? *(const float *)p
                             : from->kind == FN_UINT8   ? *(const uint8_t *)p
                                                        : 0;
        if (dtype == FN_FLOAT64)
            ((double *)to)[i] = from->kind == FN_INT64 ? (double)*(const int64_t *)p : value;
        else
            ((float *)to)[i] = from->kind == FN_INT64 ? (float)*(const int64_t *)p : (float)value;
        for (int d = row->dims - 1; d >= 0 && ++at[d] == row->dim[d]; d--)
            at[d] = 0;
    }
}

/* Whether numbers of a kind are finite in the dtype. */
static inline int finite_in(int64_t dtype, const void *data, int64_t kind, int64_t n) {
    if (kind == FN_UINT8 || kind == FN_INT64)
        return 1;
    if (kind == dtype || kind == FN_FLOAT32)
        return fn_data_functions_of(kind)->all_finite(data, n);
    int finite = 1;
    for (int64_t i = 0; i < n; i++)
        finite &= fabs(((const double *)data)[i]) <= FLT_MAX;
    return finite;
}

/* Whether all numbers of a kind lie in [low, high]. */
static inline int all_within(const void *data, int64_t kind, int64_t n, double low, double high) {
    int within = kind == FN_FLOAT32 || kind == FN_FLOAT64;
    for (int64_t i = 0; within && i < n; i++) {
        const double value = kind == FN_FLOAT32 ? ((const float *)data)[i] : ((const double *)data)[i];
        within = value >= low && value <= high;
    }
    return within;
}

/* Allocate a struct that begins with a `common`, and fill that. NULL, with an exception, if it cannot be made. */
common *new_common(size_t bytes, PyObject *type, PyObject *kept, PyObject *counters, int64_t numbers);

/* Let go of it. */
void drop(common *c);

/* A C function with a capsule of what it needs, which it owns from here on; NULL, with an exception. */
PyObject *function_of(common *c, const char *name, PyMethodDef *method);

/* Read a tuple of dimensions, and a record of so many bytes; −1, with an exception, where they are none. */
int read_shape(PyObject *tuple, row_shape *row);
int read_record(PyObject *given, void *to, size_t bytes);

/* directions.c: makes the function product(x, second, v, draw). */
PyObject *make_product(PyObject *module, PyObject *arguments);

#endif
