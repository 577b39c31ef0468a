/* The function of Python that multiplies by a Jacobian, a Hessian or a Gauss–Newton matrix (see calls.c): it runs a plan
 * of products on arrays of the caller.
 *
 * Directions of parameters that lie as the kernels want them are read in place; others are copied to the segment `state`.
 * A product by name is written where the caller gets it. For a model that exceeds the caches, copies of vectors as long as
 * its parameters would take as long as a layer. */
#include "engine/calls.h"

/* What the second argument is. */
typedef enum { NOTHING, LABELS, TARGETS, DIRECTION_OF_X } second_kind;

/* A trainable parameter. */
typedef struct {
    PyObject *name;
    row_shape shown;  /* PyTorch's shape, as the caller's arrays have */
    int reversed;     /* whether kernels have its dimensions in reverse order */
    int cleared;      /* whether no instruction writes all of its product */
    int64_t offset;   /* bytes, in each segment with the layout of the parameters */
    int64_t lies;     /* of the present direction, from the beginning of the segment `state` */
    PyObject *held;   /* its array while the function runs */
} parameter;

/* An operand of an instruction that is the direction of a parameter. */
typedef struct {
    int64_t *offset;
    const parameter *of;
} operand;

typedef struct {
    common common;
    fn_context context;
    const fn_instruction *program[2];
    int64_t instructions[2];
    row_shape x, second, y;
    second_kind kind;
    int64_t classes;
    double low, high; /* of targets */
    int64_t least, most, rows_to_share;
    int64_t room_of_x, room_of_second; /* for converted rows; where the direction of x lies */
    int64_t from_buffers, buffers_bytes;
    int64_t gives[2];        /* where y and its derivative lie, or 0: the product is of parameters */
    int64_t parameter_bytes; /* of all */
    int64_t parameters, operands;
    parameter *parameter;
    operand *operand;
} produced;

static const char PRODUCED[] = "fastnet product";

static inline void *address(int64_t at) { return (void *)(intptr_t)at; }

static inline int64_t itemsize(const produced *p) { return fn_bytes_of(p->common.dtype); }

/* Rows of the dtype, one after the other: the caller's, or converted ones in `room`. */
static const void *plain_rows(const produced *p, const rows_of *rows, const row_shape *row, int64_t room) {
    if (rows->contiguous && rows->kind == p->common.dtype)
        return rows->data;
    const npy_intp stride = PyArray_STRIDES(rows->array)[0];
    char *to = address(room);
    for (int64_t r = 0; r < rows->rows; r++, to += row->size * itemsize(p))
        convert_row(rows, row, p->common.dtype, rows->data + r * stride, to);
    return address(room);
}

static int all_finite(const produced *p, const void *numbers, int64_t n) {
    return fn_data_functions_of(p->common.dtype)->all_finite(numbers, n);
}

/* Copy a matrix of any strides, in squares: one of the two is read across its rows. */
#define COPY_MATRIX(to_type, from_type)                                                            \
    for (npy_intp i = 0; i < rows; i += SQUARE)                                                    \
        for (npy_intp j = 0; j < columns; j += SQUARE)                                             \
            for (npy_intp r = i; r < rows && r < i + SQUARE; r++)                                  \
                for (npy_intp c = j; c < columns && c < j + SQUARE; c++)                           \
                    ((to_type *)to)[r * columns + c] =                                             \
                        (to_type)*(const from_type *)(from + r * row_stride + c * column_stride);

enum { SQUARE = 16 };

static void copy_matrix(int64_t dtype, int64_t kind, npy_intp rows, npy_intp columns, char *to, const char *from,
                        npy_intp row_stride, npy_intp column_stride) {
    if (dtype == FN_FLOAT32 && kind == FN_FLOAT32) {
        COPY_MATRIX(float, float)
    } else if (dtype == FN_FLOAT32) {
        COPY_MATRIX(float, double)
    } else if (kind == FN_FLOAT32) {
        COPY_MATRIX(double, float)
    } else {
        COPY_MATRIX(double, double)
    }
}

/* Copy a direction of any strides to where kernels read it, in their order. */
static void copy_direction(const produced *p, const parameter *of, PyArrayObject *array, int64_t kind, char *to) {
    const int dims = of->shown.dims;
    npy_intp dim[MAX_ROW_DIMS] = {1, 1}, stride[MAX_ROW_DIMS] = {0}, at[MAX_ROW_DIMS] = {0};
    const int some = dims < 2 ? 2 - dims : 0; /* further dimensions, of size 1 */
    for (int d = 0; d < dims; d++) {
        const int own = of->reversed ? dims - 1 - d : d;
        dim[some + d] = PyArray_DIMS(array)[own];
        stride[some + d] = PyArray_STRIDES(array)[own];
    }
    const int outer = some + dims - 2;
    const npy_intp rows = dim[outer], columns = dim[outer + 1];
    for (int64_t left = of->shown.size; left > 0; left -= rows * columns) {
        const char *from = PyArray_BYTES(array);
        for (int d = 0; d < outer; d++)
            from += at[d] * stride[d];
        copy_matrix(p->common.dtype, kind, rows, columns, to, from, stride[outer], stride[outer + 1]);
        to += rows * columns * itemsize(p);
        for (int d = outer - 1; d >= 0 && ++at[d] == dim[d]; d--)
            at[d] = 0;
    }
}

/* Take a parameter's direction; 0 where the array is none, or not finite. */
static int take_direction(const produced *p, parameter *of, PyObject *object) {
    if (!object || Py_TYPE(object) != p->common.array_type)
        return 0;
    PyArrayObject *array = (PyArrayObject *)object;
    const int64_t kind = kind_of(PyArray_TYPE(array));
    if ((kind != FN_FLOAT32 && kind != FN_FLOAT64) || PyArray_NDIM(array) != of->shown.dims ||
        !PyArray_ISALIGNED(array) || !PyArray_ISNOTSWAPPED(array))
        return 0;
    for (int d = 0; d < of->shown.dims; d++)
        if (PyArray_DIMS(array)[d] != of->shown.dim[d])
            return 0;
    const int64_t segment = p->context.segment[FN_STATE];
    const int in_place = of->reversed ? PyArray_IS_F_CONTIGUOUS(array) : PyArray_IS_C_CONTIGUOUS(array);
    if (in_place && kind == p->common.dtype) {
        of->lies = (int64_t)(intptr_t)PyArray_BYTES(array) - segment;
    } else {
        of->lies = of->offset;
        copy_direction(p, of, array, kind, address(segment + of->offset));
    }
    if (!all_finite(p, address(segment + of->lies), of->shown.size))
        return 0;
    Py_INCREF(object);
    of->held = object;
    return 1;
}

static void let_go(produced *p) {
    for (int64_t i = 0; i < p->parameters; i++)
        Py_CLEAR(p->parameter[i].held);
}

/* Take the directions of all parameters, and let the instructions read them. */
static int take_directions(produced *p, PyObject *v) {
    if (!p->parameters)
        return v == Py_None;
    if (!PyDict_CheckExact(v) || PyDict_Size(v) != p->parameters)
        return 0;
    for (int64_t i = 0; i < p->parameters; i++)
        if (!take_direction(p, &p->parameter[i], PyDict_GetItem(v, p->parameter[i].name)))
            return 0;
    for (int64_t i = 0; i < p->operands; i++)
        *p->operand[i].offset = p->operand[i].of->lies;
    return 1;
}

/* Take the rows of x and of the second argument. */
static int take_rows(const produced *p, PyObject *const *arguments, fn_context *now) {
    rows_of x, second;
    const row_shape column = {.dims = 0, .size = 1};
    if (!rows_in(&p->common, arguments[0], &p->x, &x) || x.rows < p->least || x.rows > p->most)
        return 0;
    if (p->kind == NOTHING) {
        if (arguments[1] != Py_None)
            return 0;
    } else if (!rows_in(&p->common, arguments[1], &p->second, &second) &&
               (p->kind == DIRECTION_OF_X || p->second.size != 1 ||
                !rows_in(&p->common, arguments[1], &column, &second))) {
        return 0;
    } else if (second.rows != x.rows) {
        return 0;
    }
    now->rows = x.rows;
    now->threads = x.rows < p->rows_to_share ? 1 : p->context.threads;
    const void *const numbers = plain_rows(p, &x, &p->x, p->room_of_x);
    if (!all_finite(p, numbers, x.rows * p->x.size))
        return 0;
    now->segment[FN_X] = (int64_t)(intptr_t)numbers;
    if (p->kind == LABELS) {
        if (second.kind != FN_INT64 || !second.contiguous)
            return 0;
        for (int64_t i = 0; i < second.rows; i++)
            if ((uint64_t)((const int64_t *)second.data)[i] >= (uint64_t)p->classes)
                return 0;
        now->segment[FN_Y] = (int64_t)(intptr_t)second.data;
    } else if (p->kind != NOTHING) {
        const row_shape *const row = PyArray_NDIM(second.array) == 1 ? &column : &p->second;
        const int64_t n = second.rows * p->second.size;
        if ((second.kind != FN_FLOAT32 && second.kind != FN_FLOAT64) ||
            (p->kind == TARGETS && (!second.contiguous || !all_within(second.data, second.kind, n, p->low, p->high))))
            return 0;
        const void *const rows = plain_rows(p, &second, row, p->room_of_second);
        if (p->kind == TARGETS) {
            now->segment[FN_Y] = (int64_t)(intptr_t)rows;
        } else {
            if (!all_finite(p, rows, n))
                return 0;
            if (rows == second.data)
                memcpy(address(p->room_of_second), rows, (size_t)(n * itemsize(p)));
        }
    }
    return 1;
}

/* Run both programs; whether the product of parameters is finite. */
static int run(const produced *p, const fn_context *now) {
    char *const to = address(now->segment[FN_GRADS]);
    if (p->buffers_bytes)
        memcpy(address(now->segment[FN_BUFFERS]), address(p->from_buffers), (size_t)p->buffers_bytes);
    for (int64_t i = 0; !p->gives[0] && i < p->parameters; i++)
        if (p->parameter[i].cleared)
            memset(to + p->parameter[i].offset, 0, (size_t)(p->parameter[i].shown.size * itemsize(p)));
    fn_run(p->program[0], p->instructions[0], now);
    if (p->gives[0])
        return 1;
    fn_run(p->program[1], p->instructions[1], now);
    for (int64_t i = 0; i < p->parameters; i++)
        if (!all_finite(p, to + p->parameter[i].offset, p->parameter[i].shown.size))
            return 0;
    return 1;
}

static int type_of(const produced *p) { return p->common.dtype == FN_FLOAT64 ? NPY_FLOAT64 : NPY_FLOAT32; }

/* The parts of a vector with the layout of the parameters, by name: views. */
static PyObject *by_name(const produced *p, PyObject *vector, char *data) {
    PyObject *found = PyDict_New();
    for (int64_t i = 0; found && i < p->parameters; i++) {
        const parameter *of = &p->parameter[i];
        const int dims = of->shown.dims;
        npy_intp dim[MAX_ROW_DIMS], stride[MAX_ROW_DIMS], next = itemsize(p);
        for (int k = 0; k < dims; k++) {
            const int d = of->reversed ? k : dims - 1 - k;
            dim[d] = of->shown.dim[d];
            stride[d] = next;
            next *= dim[d];
        }
        PyObject *view = PyArray_New(p->common.array_type, dims, dim, type_of(p), stride, data + of->offset, 0,
                                     NPY_ARRAY_WRITEABLE, NULL);
        if (view)
            Py_INCREF(vector);
        if (!view || PyArray_SetBaseObject((PyArrayObject *)view, vector) < 0 ||
            PyDict_SetItem(found, of->name, view) < 0)
            Py_CLEAR(found);
        Py_XDECREF(view);
    }
    return found;
}

/* A vector with room for the layout of the parameters from `data` on, which begins at a line of the caches. */
static PyObject *new_vector(const produced *p, char **data) {
    const npy_intp size = (p->parameter_bytes + FN_LINE) / itemsize(p);
    PyObject *vector = PyArray_SimpleNew(1, &size, type_of(p));
    if (vector)
        *data = address(((int64_t)(intptr_t)PyArray_BYTES((PyArrayObject *)vector) + FN_LINE - 1) & -FN_LINE);
    return vector;
}

/* New arrays for y and its derivative. */
static PyObject *new_outputs(const produced *p, int64_t rows) {
    npy_intp dim[MAX_ROW_DIMS + 1] = {rows};
    memcpy(dim + 1, p->y.dim, sizeof p->y.dim);
    PyObject *both = PyTuple_New(2);
    for (int i = 0; both && i < 2; i++) {
        PyObject *array = PyArray_SimpleNew(p->y.dims + 1, dim, type_of(p));
        if (!array || PyTuple_SetItem(both, i, array) < 0)
            Py_CLEAR(both);
    }
    return both;
}

static PyObject *product(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
    produced *p = PyCapsule_GetPointer(self, PRODUCED);
    if (!p)
        return NULL;
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "expected x, targets or a direction of x, v, and the step of random draws");
        return NULL;
    }
    fn_context now = p->context;
    now.step = PyLong_AsUnsignedLongLong(arguments[3]);
    if (PyErr_Occurred())
        return NULL;
    if (!take_rows(p, arguments, &now) || !take_directions(p, arguments[2])) {
        let_go(p);
        Py_RETURN_NONE;
    }
    char *data = NULL;
    PyObject *found = p->gives[0] ? new_outputs(p, now.rows) : new_vector(p, &data);
    if (!found) {
        let_go(p);
        return NULL;
    }
    if (data)
        now.segment[FN_GRADS] = (int64_t)(intptr_t)data;
    int finite;
    Py_BEGIN_ALLOW_THREADS
    finite = run(p, &now);
    Py_END_ALLOW_THREADS
    let_go(p);
    if (!finite) {
        Py_DECREF(found);
        Py_RETURN_NONE;
    }
    if (!data) {
        for (int i = 0; i < 2; i++)
            memcpy(PyArray_DATA((PyArrayObject *)PyTuple_GetItem(found, i)), address(p->gives[i]),
                   (size_t)(now.rows * p->y.size * itemsize(p)));
        return found;
    }
    PyObject *named = by_name(p, found, data);
    Py_DECREF(found);
    return named;
}

static PyMethodDef product_method = {
    "product", (PyCFunction)(void (*)(void))product, METH_FASTCALL,
    "product(x, second, v, draw): a product, or None, with nothing changed, unless all are as the program needs them."};

/* The number of operands that are directions. */
static int64_t count_directions(const produced *p) {
    int64_t found = 0;
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i < p->instructions[k]; i++)
            for (int t = 0; t < FN_TENSORS; t++)
                found += p->program[k][i].segment[t] == FN_STATE;
    return found;
}

/* Find the operands that are directions; −1, with an exception, where one is that of no parameter. */
static int find_operands(produced *p) {
    int64_t found = 0;
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i < p->instructions[k]; i++)
            for (int t = 0; t < FN_TENSORS; t++) {
                fn_instruction *at = (fn_instruction *)p->program[k] + i;
                if (at->segment[t] != FN_STATE)
                    continue;
                const parameter *of = NULL;
                for (int64_t j = 0; j < p->parameters; j++)
                    if (p->parameter[j].offset == at->offset[t])
                        of = &p->parameter[j];
                if (!of) {
                    PyErr_SetString(PyExc_ValueError, "an operand is the direction of no parameter");
                    return -1;
                }
                p->operand[found++] = (operand){&at->offset[t], of};
            }
    return 0;
}

static int read_parameters(PyObject *tuple, produced *p) {
    for (int64_t i = 0; i < p->parameters; i++) {
        PyObject *shown;
        parameter *of = &p->parameter[i];
        long long offset;
        if (!PyArg_ParseTuple(PyTuple_GetItem(tuple, i), "UOiiL", &of->name, &shown, &of->reversed, &of->cleared,
                              &offset) ||
            read_shape(shown, &of->shown) < 0)
            return -1;
        of->offset = offset;
    }
    return 0;
}

PyObject *make_product(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *context, *type, *kept, *x, *second, *y, *parameters;
    long long programs[2], instructions[2], rooms[2], gives[2], limits[3], dtype, classes, from, buffers, bytes;
    double low, high;
    int kind;
    if (!PyArg_ParseTuple(arguments, "OOO(LLLL)(OOO)(LLL)(LiLdd)(LL)(LL)(LL)(OL)", &context, &type, &kept, programs,
                          instructions, programs + 1, instructions + 1, &x, &second, &y, limits, limits + 1,
                          limits + 2, &dtype, &kind, &classes, &low, &high, rooms, rooms + 1, &from, &buffers, gives,
                          gives + 1, &parameters, &bytes))
        return NULL;
    const Py_ssize_t count = PyTuple_Size(parameters);
    if (count < 0)
        return NULL;
    produced given = {.kind = kind, .classes = classes, .low = low, .high = high, .least = limits[0],
                      .most = limits[1], .rows_to_share = limits[2], .room_of_x = rooms[0], .room_of_second = rooms[1],
                      .from_buffers = from, .buffers_bytes = buffers, .gives = {gives[0], gives[1]},
                      .parameter_bytes = bytes, .parameters = count, .instructions = {instructions[0], instructions[1]},
                      .program = {address(programs[0]), address(programs[1])}};
    given.operands = count_directions(&given);
    PyObject *const all = Py_BuildValue("(OO)", kept, parameters), *const none = PyTuple_New(0); /* the names are in there */
    produced *p = NULL;
    if (all && none)
        p = (produced *)new_common(sizeof *p + (size_t)count * sizeof *p->parameter +
                                       (size_t)given.operands * sizeof *p->operand,
                                   type, all, none, 1);
    Py_XDECREF(all);
    Py_XDECREF(none);
    if (!p)
        return NULL;
    given.common = p->common;
    *p = given;
    p->parameter = (parameter *)(p + 1);
    p->operand = (operand *)(p->parameter + count);
    p->common.dtype = dtype;
    if (read_record(context, &p->context, sizeof p->context) < 0 || read_shape(x, &p->x) < 0 ||
        read_shape(second, &p->second) < 0 || read_shape(y, &p->y) < 0 || read_parameters(parameters, p) < 0 ||
        find_operands(p) < 0) {
        drop(&p->common);
        return NULL;
    }
    return function_of(&p->common, PRODUCED, &product_method);
}
