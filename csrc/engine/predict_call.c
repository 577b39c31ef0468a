/* Prediction as a function of Python: fastnet._predict, a second module of the extension.
 *
 * For a small net, the prediction itself takes less time than a call through cffi and the checks of two arrays in
 * Python. This function does both in C. It refuses whatever needs a conversion, which is left to Python. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>
#include <string.h>

#include "engine/fastnet.h"

enum { MAX_DIMS = 64 }; /* NumPy's own limit */

typedef struct {
    int count;
    Py_ssize_t dim[MAX_DIMS];
} row_shape;

typedef struct {
    fn_predict_args args;
    PyObject *array_type;
    char format; /* of the buffer protocol */
    size_t itemsize;
    row_shape x, out;
} predictor;

/* Get a view of an array; fails unless it is exactly of the type, C-contiguous, aligned, and of the dtype and row
 * shape. */
static int view_array(const predictor *p, PyObject *array, const row_shape *row, int flags,
                      Py_buffer *view) {
    if ((PyObject *)Py_TYPE(array) != p->array_type)
        return 0;
    if (PyObject_GetBuffer(array, view, flags | PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) < 0) {
        PyErr_Clear();
        return 0;
    }
    int fits = view->format[0] == p->format && view->format[1] == 0 &&
               (uintptr_t)view->buf % p->itemsize == 0 && view->ndim == row->count + 1;
    for (int i = 0; fits && i < row->count; i++)
        fits = view->shape[i + 1] == row->dim[i];
    if (!fits)
        PyBuffer_Release(view);
    return fits;
}

static const char CAPSULE[] = "fastnet predictor";

static PyObject *predict(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
    const predictor *p = PyCapsule_GetPointer(self, CAPSULE);
    if (!p)
        return NULL;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "expected x and out");
        return NULL;
    }
    Py_buffer x, out;
    if (!view_array(p, arguments[0], &p->x, 0, &x))
        Py_RETURN_FALSE;
    if (!view_array(p, arguments[1], &p->out, PyBUF_WRITABLE, &out)) {
        PyBuffer_Release(&x);
        Py_RETURN_FALSE;
    }
    int done = 0;
    if (x.shape[0] == out.shape[0]) {
        Py_BEGIN_ALLOW_THREADS
        done = fn_predict(&p->args, x.buf, x.shape[0], out.buf) == FN_OK;
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&x);
    PyBuffer_Release(&out);
    return PyBool_FromLong(done);
}

static PyMethodDef predict_method = {
    "predict", (PyCFunction)(void (*)(void))predict, METH_FASTCALL,
    "predict(x, out): compute the output; False, with out unchanged, unless both are as the plan needs them."};

static void release(PyObject *capsule) {
    predictor *p = PyCapsule_GetPointer(capsule, CAPSULE);
    Py_DECREF(p->array_type);
    free(p);
}

static int read_shape(PyObject *tuple, row_shape *row) {
    const Py_ssize_t count = PyTuple_Size(tuple);
    if (count < 0 || count >= MAX_DIMS) {
        if (count >= MAX_DIMS)
            PyErr_SetString(PyExc_ValueError, "too many dimensions");
        return -1;
    }
    row->count = (int)count;
    for (int i = 0; i < row->count; i++) {
        row->dim[i] = PyLong_AsSsize_t(PyTuple_GetItem(tuple, i));
        if (row->dim[i] == -1 && PyErr_Occurred())
            return -1;
    }
    return 0;
}

static PyObject *make_predictor(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer args;
    PyObject *type, *x_row, *out_row;
    if (!PyArg_ParseTuple(arguments, "y*OOO", &args, &type, &x_row, &out_row))
        return NULL;
    predictor *p = calloc(1, sizeof *p);
    PyObject *capsule = NULL, *function = NULL;
    if (!p) {
        PyErr_NoMemory();
    } else if (args.len != (Py_ssize_t)sizeof p->args) {
        PyErr_SetString(PyExc_ValueError, "args is not one PREDICT record");
    } else if (read_shape(x_row, &p->x) == 0 && read_shape(out_row, &p->out) == 0) {
        memcpy(&p->args, args.buf, sizeof p->args);
        const int is_double = p->args.dtype == FN_FLOAT64;
        p->format = is_double ? 'd' : 'f';
        p->itemsize = is_double ? sizeof(double) : sizeof(float);
        p->array_type = type;
        capsule = PyCapsule_New(p, CAPSULE, release);
    }
    PyBuffer_Release(&args);
    if (!capsule) {
        free(p);
        return NULL;
    }
    Py_INCREF(type);
    function = PyCFunction_New(&predict_method, capsule);
    Py_DECREF(capsule);
    return function;
}

static PyMethodDef methods[] = {
    {"predictor", make_predictor, METH_VARARGS,
     "predictor(args, ndarray, x_row, out_row): the function predict(x, out) of a PREDICT record and row shapes."},
    {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "fastnet._predict", NULL, 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__predict(void) { return PyModuleDef_Init(&definition); }
