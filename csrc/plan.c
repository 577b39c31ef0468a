/* Programs and training steps; see fastnet/plan/records.py and fastnet/backends/base.py. */
#include <math.h>
#include <string.h>

#include "call.h"

/* The linker gathers the descriptors of all kernels in one section and names its ends. */
extern const fn_kernel *const __start_fn_kernels[], *const __stop_fn_kernels[];

int64_t fn_kernel_count(void) { return __stop_fn_kernels - __start_fn_kernels; }

void fn_kernel_at(int64_t i, fn_kernel_info *info) {
    const fn_kernel *kernel = __start_fn_kernels[i];
    *info = (fn_kernel_info){kernel->name, kernel->tensors, kernel->dtype, kernel->level,
                             (int64_t)(intptr_t)kernel->entry};
}

#if defined(__x86_64__)
static const char *const level_names[] = {"x86-64", "x86-64-fma", "x86-64-v3", "x86-64-v4"};

int64_t fn_machine_level(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("x86-64-v4")   ? 3
           : __builtin_cpu_supports("x86-64-v3") ? 2
           : __builtin_cpu_supports("fma")       ? 1
                                                 : 0;
}
#else
static const char *const level_names[] = {"aarch64"};

int64_t fn_machine_level(void) { return 0; }
#endif

const char *fn_level_name(int64_t level) {
    const int64_t count = sizeof level_names / sizeof *level_names;
    return level >= 0 && level < count ? level_names[level] : "unknown";
}

const char *fn_source_digest(void) { return FASTNET_SOURCE_DIGEST; }

static void *pointer(int64_t address) { return (void *)(intptr_t)address; }

void fn_run(const fn_instruction *program, int64_t count, const fn_context *context) {
    fn_call call = {
        .rows = context->rows,
        .seed = context->seed,
        .step = context->step,
        .scratch = pointer(context->scratch),
    };
    for (const fn_instruction *at = program; at < program + count; at++) {
        for (int i = 0; i < FN_TENSORS; i++)
            call.tensor[i] = at->segment[i] < 0
                                 ? NULL
                                 : pointer(context->segment[at->segment[i]] + at->offset[i]);
        call.size = at->size;
        call.scalar = at->scalar;
        call.stream = at->stream;
        call.accumulate = context->accumulate | at->accumulate;
        if (context->hyper)
            call.hyper = (const double *)pointer(context->hyper) + at->group * context->hyper_size;
        ((fn_entry *)pointer(at->entry))(&call);
    }
}

/* A data set's array, and what its rows become. */
typedef struct {
    const char *data;
    int64_t kind, width;
    void *stage;
} source;

static int64_t bytes_of(int64_t kind) { return kind == FN_FLOAT32 ? 4 : kind == FN_UINT8 ? 1 : 8; }

#define CONVERT(to_type, from_type)                                                                \
    do {                                                                                           \
        const from_type *from = row;                                                               \
        to_type *to = (to_type *)s.stage + r * s.width;                                            \
        for (int64_t j = 0; j < s.width; j++)                                                      \
            to[j] = (to_type)from[j];                                                              \
    } while (0)

/* The rows as an array of the plan's dtype: in place where they are one run of it, else gathered. */
static const void *gather(source s, const int64_t *index, int64_t rows, int64_t dtype) {
    const int64_t row_bytes = s.width * bytes_of(s.kind);
    int64_t run = 1;
    while (run < rows && index[run] == index[run - 1] + 1)
        run++;
    if (s.kind == dtype && rows && run == rows)
        return s.data + index[0] * row_bytes;
    for (int64_t r = 0; r < rows; r++) {
        const void *row = s.data + index[r] * row_bytes;
        if (s.kind == dtype)
            memcpy((char *)s.stage + r * row_bytes, row, (size_t)row_bytes);
        else if (dtype == FN_FLOAT32 && s.kind == FN_UINT8)
            CONVERT(float, uint8_t);
        else if (dtype == FN_FLOAT32 && s.kind == FN_FLOAT64)
            CONVERT(float, double);
        else if (dtype == FN_FLOAT32)
            CONVERT(float, int64_t);
        else if (s.kind == FN_UINT8)
            CONVERT(double, uint8_t);
        else if (s.kind == FN_FLOAT32)
            CONVERT(double, float);
        else
            CONVERT(double, int64_t);
    }
    return s.stage;
}

/* Copy labels while checking them, so that a caller's later change cannot pass the check. Returns
 * the first row of the data set whose label is not in [0, classes), or -1. */
static int64_t gather_labels(source s, const int64_t *index, int64_t rows, int64_t classes) {
    const volatile int64_t *labels = (const int64_t *)s.data;
    int64_t *stage = s.stage;
    for (int64_t r = 0; r < rows; r++) {
        const int64_t label = labels[index[r]];
        if (label < 0 || label >= classes)
            return index[r];
        stage[r] = label;
    }
    return -1;
}

void fn_train(fn_train_args *args) {
    const source x = {pointer(args->x), args->x_kind, args->x_width, pointer(args->x_stage)};
    const source y = {pointer(args->y), args->y_kind, args->y_width, pointer(args->y_stage)};
    const int64_t *offsets = pointer(args->batch_offsets), *index = pointer(args->index);
    const double *loss = pointer(args->loss), *row_loss = pointer(args->row_loss);
    double *losses = pointer(args->losses), *row_losses = pointer(args->row_losses);
    char *outputs = pointer(args->outputs);
    void *buffers = pointer(args->context.segment[FN_BUFFERS]), *kept = pointer(args->buffers_kept);
    const size_t buffers_bytes = (size_t)args->buffers_bytes;
    fn_context context = args->context;

    args->status = FN_OK;
    for (args->done = 0; args->done < args->steps; args->done++) {
        const int64_t s = args->done, rows = offsets[s + 1] - offsets[s];
        const int64_t *here = index + offsets[s];
        context.rows = rows;
        context.step = args->context.step + (uint64_t)s;
        context.segment[FN_X] = (int64_t)(intptr_t)gather(x, here, rows, args->dtype);
        if (args->classes > 0) {
            const int64_t bad_row = gather_labels(y, here, rows, args->classes);
            if (bad_row >= 0) {
                args->status = FN_BAD_LABEL;
                args->bad_row = bad_row;
                return;
            }
            context.segment[FN_Y] = args->y_stage;
        } else {
            context.segment[FN_Y] = (int64_t)(intptr_t)gather(y, here, rows, args->dtype);
        }

        if (buffers_bytes)
            memcpy(kept, buffers, buffers_bytes);
        fn_run(pointer(args->forward), args->forward_count, &context);
        losses[s] = *loss;
        if (row_losses)
            memcpy(row_losses + offsets[s], row_loss, (size_t)rows * sizeof(double));
        if (outputs) {
            memcpy(outputs + offsets[s] * args->output_bytes, pointer(args->output),
                   (size_t)(rows * args->output_bytes));
        }
        if (!isfinite(losses[s])) {
            if (buffers_bytes)
                memcpy(buffers, kept, buffers_bytes);
            args->status = FN_NOT_FINITE;
            return;
        }
        fn_run(pointer(args->backward), args->backward_count, &context);
        context.hyper = args->hyper + s * args->groups * context.hyper_size * (int64_t)sizeof(double);
        fn_run(pointer(args->update), args->update_count, &context);
        context.hyper = 0;
    }
}
