/* Programs and training steps; see fastnet/plan/records.py and fastnet/backends/base.py. */
#include <math.h>
#include <string.h>

#include "share.h"

/* The linker gathers the descriptors of all kernels in one section and names its ends. */
extern const fn_kernel *const __start_fn_kernels[], *const __stop_fn_kernels[];

int64_t fn_kernel_count(void) { return __stop_fn_kernels - __start_fn_kernels; }

void fn_kernel_at(int64_t i, fn_kernel_info *info) {
    const fn_kernel *kernel = __start_fn_kernels[i];
    *info = (fn_kernel_info){kernel->name, kernel->tensors, kernel->dtype, kernel->level,
                             (int64_t)(intptr_t)kernel->entry, (int64_t)(intptr_t)kernel->piece,
                             kernel->finishes};
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

static inline void point_to(fn_call *call, const fn_instruction *at, const fn_context *context) {
    call->at = at;
    call->size = at->size;
    call->scalar = at->scalar;
    call->stream = at->stream;
    call->accumulate = context->accumulate | at->accumulate;
    if (context->hyper)
        call->hyper = (const double *)pointer(context->hyper) + at->group * context->hyper_size;
}

/* This thread's part of a program. An instruction with a piece takes the one behind it along. */
static void run_program(const fn_instruction *program, int64_t count, const fn_context *context,
                        fn_member *member) {
    fn_call call = {
        .segment = context->segment,
        .rows = context->rows,
        .seed = context->seed,
        .step = context->step,
        .scratch = pointer(context->scratch + (member ? member->number * FN_SCRATCH : 0)),
        .member = member,
    };
    for (const fn_instruction *at = program; at < program + count; at++) {
        fn_call next;
        point_to(&call, at, context);
        if (at->piece && context->rows * at[1].size[0] >= context->elements_to_fuse) {
            next = call;
            point_to(&next, ++at, context);
            call.next = &next;
            call.piece = (fn_piece *)pointer(at[-1].piece);
        }
        ((fn_entry *)pointer(call.at->entry))(&call);
        call.next = NULL;
        together(&call);
    }
}

typedef struct {
    const fn_instruction *program;
    int64_t count;
    const fn_context *context;
} run;

static void run_as(fn_member *member, void *argument) {
    const run *r = argument;
    run_program(r->program, r->count, r->context, member);
}

void fn_run(const fn_instruction *program, int64_t count, const fn_context *context) {
    run r = {program, count, context};
    fn_run_team(context->threads, run_as, &r);
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

/* The rows as an array of the plan's dtype: in place where they are one run of it, else in the stage. */
static const void *rows_of(source s, const int64_t *index, int64_t rows, int64_t dtype) {
    int64_t run = 1;
    while (run < rows && index[run] == index[run - 1] + 1)
        run++;
    return s.kind == dtype && rows && run == rows ? s.data + index[0] * s.width * bytes_of(s.kind)
                                                  : s.stage;
}

/* Fill rows [begin, end) of the stage. */
static void gather(source s, const int64_t *index, fn_range part, int64_t dtype) {
    const int64_t row_bytes = s.width * bytes_of(s.kind);
    for (int64_t r = part.begin; r < part.end; r++) {
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

/* The inputs of step s, whose rows the context has: x by the whole team, y by its first. */
static void gather_minibatch(const fn_call *call, fn_train_args *args, const int64_t *index,
                             fn_context *context) {
    const source x = {pointer(args->x), args->x_kind, args->x_width, pointer(args->x_stage)};
    const source y = {pointer(args->y), args->y_kind, args->y_width, pointer(args->y_stage)};
    const int64_t rows = context->rows;
    const void *x_rows = rows_of(x, index, rows, args->dtype), *y_rows = y.stage;
    if (x_rows == x.stage)
        SHARED(r, call, rows, 1 + 4096 / (x.width + 1))
            gather(x, index, r, args->dtype);
    if (!args->classes)
        y_rows = rows_of(y, index, rows, args->dtype);
    if (is_first(call) && args->classes) {
        args->bad_row = gather_labels(y, index, rows, args->classes);
        if (args->bad_row >= 0)
            args->status = FN_BAD_LABEL;
    } else if (is_first(call) && y_rows == y.stage) {
        gather(y, index, (fn_range){0, rows}, args->dtype);
    }
    context->segment[FN_X] = (int64_t)(intptr_t)x_rows;
    context->segment[FN_Y] = (int64_t)(intptr_t)y_rows;
}

/* What a step leaves behind once its forward has run; rows are those of the chunk from `first` on. */
static void record(fn_train_args *args, int64_t step, int64_t first, int64_t rows) {
    double *losses = pointer(args->losses);
    const double loss = losses[step] = *(const double *)pointer(args->loss);
    if (args->row_losses)
        memcpy((double *)pointer(args->row_losses) + first, pointer(args->row_loss),
               (size_t)rows * sizeof(double));
    if (args->outputs)
        memcpy((char *)pointer(args->outputs) + first * args->output_bytes, pointer(args->output),
               (size_t)(rows * args->output_bytes));
    if (isfinite(loss))
        return;
    if (args->buffers_bytes)
        memcpy(pointer(args->context.segment[FN_BUFFERS]), pointer(args->buffers_kept),
               (size_t)args->buffers_bytes);
    args->status = FN_NOT_FINITE;
}

/* This thread's part of all steps. The team's first does what is not shared; the others wait for it. */
static void train_as(fn_member *member, void *argument) {
    fn_train_args *args = argument;
    const fn_call call = {.member = member};
    const int64_t *offsets = pointer(args->batch_offsets), *index = pointer(args->index);
    fn_context context = args->context;
    for (int64_t s = 0; s < args->steps; s++) {
        context.rows = offsets[s + 1] - offsets[s];
        context.step = args->context.step + (uint64_t)s;
        gather_minibatch(&call, args, index + offsets[s], &context);
        if (is_first(&call) && args->buffers_bytes)
            memcpy(pointer(args->buffers_kept), pointer(args->context.segment[FN_BUFFERS]),
                   (size_t)args->buffers_bytes);
        together(&call);
        if (args->status != FN_OK)
            return;
        run_program(pointer(args->forward), args->forward_count, &context, member);
        if (is_first(&call))
            record(args, s, offsets[s], context.rows);
        together(&call);
        if (args->status != FN_OK)
            return;
        run_program(pointer(args->backward), args->backward_count, &context, member);
        context.hyper = args->hyper + s * args->groups * context.hyper_size * (int64_t)sizeof(double);
        run_program(pointer(args->update), args->update_count, &context, member);
        context.hyper = 0;
        if (is_first(&call))
            args->done = s + 1;
    }
}

void fn_train(fn_train_args *args) {
    args->status = FN_OK;
    args->done = 0;
    fn_run_team(args->context.threads, train_as, args);
}
