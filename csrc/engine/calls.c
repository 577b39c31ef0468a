/* Functions of Python that run programs on NumPy arrays: fastnet._calls, a second module of the extension.
 *
 * For a small net, a step takes less time than a call through cffi and the checks of arrays in Python. The functions
 * here do both in C. They accept exactly what their program needs, and decline all other arguments before anything has
 * changed: Python then does the same in its own way, or says what is wrong. What a call counts, such as the steps of a
 * trainer, it counts before it returns, so that Ctrl-C cannot come in between. */
#define IMPORTS_NUMPY
#include "engine/calls.h"

/* Counters. */

/* Read all counters; returns the table's row, or −1 where the table has none or the counters disagree. */
static int64_t read_counters(common *c, PyObject *own, uint64_t *draw) {
    int64_t row = -1;
    for (int i = 0; i < c->counters; i++) {
        counter *each = &c->count[i];
        PyObject *dict = each->dict ? each->dict : own;
        PyObject *value = dict && PyDict_Check(dict) ? PyDict_GetItem(dict, each->key) : NULL;
        each->value = value && PyLong_CheckExact(value) ? PyLong_AsLongLong(value) : -1;
        if (each->value < 0) {
            PyErr_Clear();
            return -1;
        }
        if (each->as == COUNTS_DRAWS)
            *draw = (uint64_t)each->value;
        if (each->as == COUNTS_NUMBERS) {
            const int64_t own = each->value - each->first;
            if (own < 0 || own >= c->numbers || (row >= 0 && own != row))
                return -1;
            row = own;
        }
    }
    return row < 0 ? 0 : row;
}

/* Increment all counters; −1 with an exception if memory has run out. */
static int count_one(common *c, PyObject *own) {
    for (int i = 0; i < c->counters; i++) {
        PyObject *value = PyLong_FromLongLong(c->count[i].value + 1);
        if (!value || PyDict_SetItem(c->count[i].dict ? c->count[i].dict : own, c->count[i].key, value) < 0) {
            Py_XDECREF(value);
            return -1;
        }
        Py_DECREF(value);
    }
    return 0;
}

/* apply(x, out): a program from one array to another. */

typedef struct {
    common common;
    fn_predict_args args;
    row_shape x, out;
} applied;

static const char APPLIED[] = "fastnet apply", STEPPED[] = "fastnet step", UPDATED[] = "fastnet update";

static int64_t run_applied(const applied *p, const rows_of *x, const rows_of *out) {
    const fn_predict_args *args = &p->args;
    if (x->contiguous && x->kind == p->common.dtype)
        return fn_predict(args, x->data, x->rows, out->data);
    char small[4096];
    const size_t bytes = (size_t)(x->rows * args->x_bytes);
    char *converted = bytes <= sizeof small ? small : malloc(bytes);
    if (!converted)
        return FN_OVERLAP;
    const npy_intp stride = PyArray_STRIDES(x->array)[0];
    for (int64_t r = 0; r < x->rows; r++)
        convert_row(x, &p->x, p->common.dtype, x->data + r * stride, converted + r * args->x_bytes);
    const int64_t status = fn_predict(args, converted, x->rows, out->data);
    if (converted != small)
        free(converted);
    return status;
}

static PyObject *apply(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
    applied *p = PyCapsule_GetPointer(self, APPLIED);
    if (!p)
        return NULL;
    rows_of x, out;
    uint64_t draw = p->args.context.step;
    if (count < 2 || count > 3) {
        PyErr_SetString(PyExc_TypeError, "expected x and out, and perhaps a __dict__ or the step of random draws");
        return NULL;
    }
    PyObject *own = count == 3 ? arguments[2] : NULL;
    if (own && PyLong_Check(own)) {
        draw = PyLong_AsUnsignedLongLong(own);
        if (PyErr_Occurred())
            return NULL;
    }
    if (!rows_in(&p->common, arguments[0], &p->x, &x) || !rows_in(&p->common, arguments[1], &p->out, &out) ||
        out.kind != p->common.dtype || !out.contiguous || !PyArray_ISWRITEABLE(out.array) || x.rows != out.rows ||
        read_counters(&p->common, own, &draw) < 0)
        Py_RETURN_FALSE;
    const int plain = x.contiguous && x.kind == p->common.dtype;
    if ((!plain || p->args.x) && (x.rows > p->args.max_rows || !x.rows))
        Py_RETURN_FALSE;
    p->args.context.step = draw;
    int64_t status;
    Py_BEGIN_ALLOW_THREADS
    status = run_applied(p, &x, &out);
    Py_END_ALLOW_THREADS
    if (status != FN_OK)
        Py_RETURN_FALSE;
    if (count_one(&p->common, own) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

/* step(x, y, third, own): a training step on these rows. */

typedef struct {
    common common;
    fn_train_args args;
    row_shape x, y, out;
    int labels;
    double low, high; /* of targets that are no labels */
    int64_t min_rows, max_rows, rows_to_share;
    int64_t hyper;       /* the table's first row */
    int64_t result, result_bytes; /* where the step leaves rows that the caller wants, and the bytes of one */
    int64_t offsets[2];
    double loss;
} stepped;

static PyObject *step(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
    stepped *p = PyCapsule_GetPointer(self, STEPPED);
    if (!p)
        return NULL;
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "expected x, y, accumulate or an array, and a __dict__ or None");
        return NULL;
    }
    rows_of x, y, out = {0};
    const row_shape column = {.dims = 0, .size = 1};
    fn_train_args *args = &p->args;
    uint64_t draw = args->context.step;
    if (!rows_in(&p->common, arguments[0], &p->x, &x) || !x.contiguous || x.kind == FN_INT64 || x.rows < p->min_rows ||
        x.rows > p->max_rows)
        Py_RETURN_NONE;
    if (!rows_in(&p->common, arguments[1], p->labels ? &column : &p->y, &y) &&
        (p->labels || p->y.size != 1 || !rows_in(&p->common, arguments[1], &column, &y)))
        Py_RETURN_NONE;
    if (!y.contiguous || y.rows != x.rows || (p->labels && y.kind != FN_INT64))
        Py_RETURN_NONE;
    if (!p->labels && !all_within(y.data, y.kind, y.rows * p->y.size, p->low, p->high))
        Py_RETURN_NONE;
    if (p->result && (!rows_in(&p->common, arguments[2], &p->out, &out) || out.kind != p->common.dtype ||
                      !out.contiguous || out.rows != x.rows || !PyArray_ISWRITEABLE(out.array)))
        Py_RETURN_NONE;
    if (p->result ? x.kind != p->common.dtype
                  : !finite_in(p->common.dtype, x.data, x.kind, x.rows * p->x.size) ||
                        (arguments[2] != Py_True && arguments[2] != Py_False))
        Py_RETURN_NONE;
    if (p->labels)
        for (int64_t i = 0; i < y.rows; i++)
            if ((uint64_t)((const int64_t *)y.data)[i] >= (uint64_t)args->classes)
                Py_RETURN_NONE;
    const int64_t row = read_counters(&p->common, arguments[3], &draw);
    if (row < 0)
        Py_RETURN_NONE;
    fn_train_args now = *args;
    now.x = (int64_t)(intptr_t)x.data;
    now.x_kind = x.kind;
    now.y = (int64_t)(intptr_t)y.data;
    now.y_kind = y.kind;
    p->offsets[1] = x.rows;
    now.batch_offsets = (int64_t)(intptr_t)p->offsets;
    now.losses = (int64_t)(intptr_t)&p->loss;
    now.steps = 1;
    now.context.accumulate = p->result ? 0 : arguments[2] == Py_True;
    now.context.step = draw;
    now.context.hyper = p->hyper ? p->hyper + row * args->table_bytes : 0;
    now.context.threads = x.rows < p->rows_to_share ? 1 : args->context.threads;
    Py_BEGIN_ALLOW_THREADS
    fn_train(&now);
    if (now.status == FN_OK && p->result)
        memcpy(out.data, (const void *)(intptr_t)p->result, (size_t)(x.rows * p->result_bytes));
    Py_END_ALLOW_THREADS
    if (now.status != FN_OK)
        Py_RETURN_NONE;
    if (count_one(&p->common, arguments[3]) < 0)
        return NULL;
    return PyFloat_FromDouble(p->loss);
}

/* update(): an update program with the numbers of the next step. */

typedef struct {
    common common;
    fn_context context;
    int64_t program, count, hyper, table_bytes;
} updated;

static PyObject *update(PyObject *self, PyObject *unused) {
    (void)unused;
    updated *p = PyCapsule_GetPointer(self, UPDATED);
    if (!p)
        return NULL;
    uint64_t draw = 0;
    const int64_t row = read_counters(&p->common, NULL, &draw);
    if (row < 0)
        Py_RETURN_FALSE;
    p->context.hyper = p->hyper + row * p->table_bytes;
    Py_BEGIN_ALLOW_THREADS
    fn_run((const fn_instruction *)(intptr_t)p->program, p->count, &p->context);
    Py_END_ALLOW_THREADS
    if (count_one(&p->common, NULL) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

/* Making these functions. */

static PyMethodDef apply_method = {
    "apply", (PyCFunction)(void (*)(void))apply, METH_FASTCALL,
    "apply(x, out, own): compute the output; False, with nothing changed, unless both are as the program needs them."};
static PyMethodDef step_method = {
    "step", (PyCFunction)(void (*)(void))step, METH_FASTCALL,
    "step(x, y, accumulate, own): make a step; its loss, or None, with nothing changed, unless both are as it needs them."};
static PyMethodDef update_method = {
    "update", update, METH_NOARGS,
    "update(): run the update of the next step; False, with nothing changed, without numbers for it."};

void drop(common *c) {
    for (int i = 0; i < c->counters; i++) {
        Py_XDECREF(c->count[i].dict);
        Py_DECREF(c->count[i].key);
    }
    Py_XDECREF((PyObject *)c->array_type);
    Py_XDECREF(c->kept);
    free(c);
}

static void release(PyObject *capsule) {
    drop(PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule)));
}

PyObject *function_of(common *c, const char *name, PyMethodDef *method) {
    PyObject *capsule = PyCapsule_New(c, name, release);
    if (!capsule) {
        drop(c);
        return NULL;
    }
    PyObject *made = PyCFunction_New(method, capsule);
    Py_DECREF(capsule);
    return made;
}

int read_shape(PyObject *tuple, row_shape *row) {
    const Py_ssize_t count = PyTuple_Size(tuple);
    if (count < 0)
        return -1;
    if (count > MAX_ROW_DIMS) {
        PyErr_SetString(PyExc_ValueError, "too many dimensions");
        return -1;
    }
    row->dims = (int)count;
    row->size = 1;
    for (int i = 0; i < row->dims; i++) {
        row->dim[i] = PyLong_AsSsize_t(PyTuple_GetItem(tuple, i));
        if (row->dim[i] == -1 && PyErr_Occurred())
            return -1;
        row->size *= row->dim[i];
    }
    return 0;
}

/* Read a tuple of counters (dict, key, as, first). */
static int read_counter_list(PyObject *tuple, common *c) {
    const Py_ssize_t count = PyTuple_Size(tuple);
    if (count < 0)
        return -1;
    if (count > MAX_COUNTERS) {
        PyErr_SetString(PyExc_ValueError, "too many counters");
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *dict, *key;
        int as;
        long long first;
        if (!PyArg_ParseTuple(PyTuple_GetItem(tuple, i), "OUiL", &dict, &key, &as, &first))
            return -1;
        if (dict == Py_None)
            dict = NULL;
        Py_XINCREF(dict);
        Py_INCREF(key);
        c->count[c->counters++] = (counter){dict, key, (counted_as)as, first, 0};
    }
    return 0;
}

int read_record(PyObject *given, void *to, size_t bytes) {
    Py_buffer record;
    if (PyObject_GetBuffer(given, &record, PyBUF_SIMPLE) < 0)
        return -1;
    const int fits = record.len == (Py_ssize_t)bytes;
    if (fits)
        memcpy(to, record.buf, bytes);
    else
        PyErr_SetString(PyExc_ValueError, "args is not one record of the expected size");
    PyBuffer_Release(&record);
    return fits ? 0 : -1;
}

common *new_common(size_t bytes, PyObject *type, PyObject *kept, PyObject *counters, int64_t numbers) {
    common *c = calloc(1, bytes);
    if (!c) {
        PyErr_NoMemory();
        return NULL;
    }
    c->numbers = numbers;
    c->array_type = (PyTypeObject *)type;
    c->kept = kept;
    Py_INCREF(type);
    Py_INCREF(kept);
    if (read_counter_list(counters, c) < 0) {
        drop(c);
        return NULL;
    }
    return c;
}

static PyObject *make_apply(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *args, *type, *x_row, *out_row, *kept, *counters;
    if (!PyArg_ParseTuple(arguments, "OOOOOO", &args, &type, &x_row, &out_row, &kept, &counters))
        return NULL;
    applied *p = (applied *)new_common(sizeof *p, type, kept, counters, 1);
    if (!p)
        return NULL;
    if (read_record(args, &p->args, sizeof p->args) < 0 || read_shape(x_row, &p->x) < 0 ||
        read_shape(out_row, &p->out) < 0) {
        drop(&p->common);
        return NULL;
    }
    p->common.dtype = p->args.dtype;
    return function_of(&p->common, APPLIED, &apply_method);
}

static PyObject *make_step(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *args, *type, *x_row, *y_row, *out_row, *kept, *counters;
    double low, high;
    int labels;
    long long min_rows, max_rows, rows_to_share, numbers, result, result_bytes;
    if (!PyArg_ParseTuple(arguments, "OO(OOO)O(OL)(ddi)(LLL)(LL)", &args, &type, &x_row, &y_row, &out_row, &kept,
                          &counters, &numbers, &low, &high, &labels, &min_rows, &max_rows, &rows_to_share,
                          &result, &result_bytes))
        return NULL;
    stepped *p = (stepped *)new_common(sizeof *p, type, kept, counters, numbers);
    if (!p)
        return NULL;
    if (read_record(args, &p->args, sizeof p->args) < 0 || read_shape(x_row, &p->x) < 0 ||
        read_shape(y_row, &p->y) < 0 || read_shape(out_row, &p->out) < 0) {
        drop(&p->common);
        return NULL;
    }
    p->common.dtype = p->args.dtype;
    p->labels = labels;
    p->low = low;
    p->high = high;
    p->min_rows = min_rows;
    p->max_rows = max_rows;
    p->rows_to_share = rows_to_share;
    p->hyper = p->args.context.hyper;
    p->result = result;
    p->result_bytes = result_bytes;
    p->args.done = p->args.at = 0;
    p->args.status = FN_OK;
    p->args.outputs = p->args.row_losses = p->args.decisions = 0;
    return function_of(&p->common, STEPPED, &step_method);
}

static PyObject *make_update(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *context, *type, *kept, *counters;
    long long program, count, hyper, table_bytes, numbers;
    if (!PyArg_ParseTuple(arguments, "OOO(OL)(LLLL)", &context, &type, &kept, &counters, &numbers, &program,
                          &count, &hyper, &table_bytes))
        return NULL;
    updated *p = (updated *)new_common(sizeof *p, type, kept, counters, numbers);
    if (!p)
        return NULL;
    if (read_record(context, &p->context, sizeof p->context) < 0) {
        drop(&p->common);
        return NULL;
    }
    p->program = program;
    p->count = count;
    p->hyper = hyper;
    p->table_bytes = table_bytes;
    return function_of(&p->common, UPDATED, &update_method);
}

static PyMethodDef methods[] = {
    {"apply", make_apply, METH_VARARGS,
     "apply(args, ndarray, x_row, out_row, kept, counters): the function apply(x, out) of a PREDICT record."},
    {"step", make_step, METH_VARARGS,
     "step(args, ndarray, rows, kept, counters, targets, limits, result): the function step(x, y, accumulate) of a "
     "TRAIN record."},
    {"update", make_update, METH_VARARGS,
     "update(context, ndarray, kept, counters, program): the function update() of a CONTEXT record."},
    {"product", make_product, METH_VARARGS,
     "product(context, ndarray, kept, programs, rows, room, parameters, gives): the function product(x, second, v, draw)."},
    {NULL, NULL, 0, NULL}};

static int import_numpy(PyObject *module) {
    (void)module;
    import_array1(-1); /* refuses a NumPy of another binary interface */
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, import_numpy}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "fastnet._calls", NULL, 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__calls(void) { return PyModuleDef_Init(&definition); }
