/* Programs and training steps; see fastnet/plan/records.py and fastnet/backends/base.py. */
#include <math.h>
#include <string.h>

#include "gather.h"
#include "share.h"

/* The linker gathers the descriptors of all kernels in one section and names its ends. */
extern const fn_kernel *const __start_fn_kernels[], *const __stop_fn_kernels[];

int64_t fn_kernel_count(void) { return __stop_fn_kernels - __start_fn_kernels; }

/* Only tiles of AVX-512 have registers and code for it; see GATES. */
enum { GATING_LEVEL = 3 };

/* Whether tiles of a product do what a kernel does. */
static fn_gate gates(const fn_kernel *kernel) {
    if (kernel->level != GATING_LEVEL)
        return FN_GATE_NONE;
    return !strcmp(kernel->name, "relu_forward") ? FN_GATE_ITSELF
           : !strcmp(kernel->name, "relu_vjp")   ? FN_GATE_OTHER
                                                 : FN_GATE_NONE;
}

void fn_kernel_at(int64_t i, fn_kernel_info *info) {
    const fn_kernel *kernel = __start_fn_kernels[i];
    *info = (fn_kernel_info){kernel->name, kernel->tensors, kernel->dtype, kernel->level,
                             (int64_t)(intptr_t)kernel->entry, (int64_t)(intptr_t)kernel->piece,
                             kernel->finishes, gates(kernel)};
}

fn_entry *fn_entry_of(const char *name, int64_t dtype, int64_t level) {
    for (int64_t i = 0; i < fn_kernel_count(); i++) {
        const fn_kernel *kernel = __start_fn_kernels[i];
        if (kernel->dtype == dtype && kernel->level == level && !strcmp(kernel->name, name))
            return kernel->entry;
    }
    return NULL;
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

/* This thread's part of a program. An instruction with a piece takes the one behind it along; the last one is told
 * of the rows that the next step reads, and all of the update that they may do in part. */
static void run_program(const fn_instruction *program, int64_t count, const fn_context *context,
                        fn_member *member, fn_rows *next_rows, fn_update *update) {
    fn_call call = {
        .segment = context->segment,
        .rows = context->rows,
        .seed = context->seed,
        .step = context->step,
        .scratch = pointer(context->scratch + (member ? member->number * FN_SCRATCH : 0)),
        .member = member,
        .update = update,
    };
    for (const fn_instruction *at = program; at < program + count; at++) {
        fn_call next;
        point_to(&call, at, context);
        call.next_rows = at + 1 == program + count ? next_rows : NULL;
        if (at->piece && (context->rows * at[1].size[0] >= context->elements_to_fuse || (at->gates && !member))) {
            call.gates = at->gates;
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
    run_program(r->program, r->count, r->context, member, NULL, NULL);
}

void fn_run(const fn_instruction *program, int64_t count, const fn_context *context) {
    run r = {program, count, context};
    fn_run_team(context->threads, run_as, &r);
}

extern const fn_data_functions *const __start_fn_data_functions[], *const __stop_fn_data_functions[];

const fn_data_functions *fn_data_functions_of(int64_t dtype) {
    static const fn_data_functions *found[2]; /* any thread finds the same */
    const fn_data_functions *best = __atomic_load_n(&found[dtype == FN_FLOAT64], __ATOMIC_RELAXED);
    if (best)
        return best;
    const int64_t top = fn_machine_level();
    for (const fn_data_functions *const *at = __start_fn_data_functions; at < __stop_fn_data_functions; at++)
        if ((*at)->dtype == dtype && (*at)->level <= top && (!best || (*at)->level > best->level))
            best = *at;
    __atomic_store_n(&found[dtype == FN_FLOAT64], best, __ATOMIC_RELAXED);
    return best;
}

/* The rows in place, where they are one run of the data set and have the plan's dtype; else NULL. */
static const void *in_place(const fn_source *s, const int64_t *index, int64_t rows, int64_t dtype) {
    if (s->kind != dtype)
        return NULL;
    for (int64_t r = 1; r < rows; r++)
        if (index[r] != index[r - 1] + 1)
            return NULL;
    return rows ? (const char *)s->data + index[0] * s->width * fn_bytes_of(s->kind) : NULL;
}

/* Copy labels while checking them, so that a caller's later change cannot pass the check. Returns
 * the first row of the data set whose label is neither in [0, classes) nor `ignored`, or -1. */
static int64_t gather_labels(const fn_source *s, const int64_t *index, int64_t rows,
                             int64_t classes, int64_t ignored) {
    const volatile int64_t *labels = s->data;
    int64_t *stage = s->stage;
    for (int64_t r = 0; r < rows; r++) {
        const int64_t label = labels[index[r]];
        if ((label < 0 || label >= classes) && label != ignored)
            return index[r];
        stage[r] = label;
    }
    return -1;
}

/* Bytes: a minibatch of more is not fetched a step ahead, nor are rows of less, of which a tile fetches one. Measured. */
enum { MOST_AHEAD = 1 << 18, LEAST_ROW_AHEAD = 4 * FN_LINE };

/* What the threads of a chunk of steps share. */
typedef struct {
    fn_train_args *args;
    fn_gather *gather;
    fn_source x, y, w;
} training;

/* The inputs of a step, whose rows the context has: x by the whole team, y and w by its first. */
static void gather_minibatch(const fn_call *call, const training *t, const int64_t *index,
                             fn_context *context) {
    fn_train_args *args = t->args;
    const int64_t rows = context->rows;
    const void *x = in_place(&t->x, index, rows, args->dtype);
    const void *y = args->classes ? NULL : in_place(&t->y, index, rows, args->dtype);
    if (!x)
        SHARED(r, call, rows, 1 + 4096 / (t->x.width + 1))
            t->gather(&t->x, index, r.begin, r.end);
    if (is_first(call) && args->classes) {
        args->bad_row = gather_labels(&t->y, index, rows, args->classes, args->ignored);
        if (args->bad_row >= 0)
            args->status = FN_BAD_LABEL;
    } else if (is_first(call) && !y) {
        t->gather(&t->y, index, 0, rows);
    }
    if (is_first(call) && args->w)
        t->gather(&t->w, index, 0, rows);
    context->segment[FN_W] = args->w_stage;
    context->segment[FN_X] = x ? (int64_t)(intptr_t)x : args->x_stage;
    context->segment[FN_Y] = y ? (int64_t)(intptr_t)y : args->y_stage;
}

/* This thread's share of the rows between two of the offsets; none where `any` is 0, where rows are short, or where
 * they are so many that the update would drive them from the caches again. */
static fn_rows rows_ahead(const training *t, const int64_t *offsets, int any, const fn_member *member,
                         int64_t threads) {
    const int64_t bytes = t->x.width * fn_bytes_of(t->x.kind);
    const int64_t given = any && bytes >= LEAST_ROW_AHEAD ? offsets[1] - offsets[0] : 0;
    const int64_t rows = given * bytes > MOST_AHEAD ? 0 : given;
    const int64_t number = member ? member->number : 0, team = member ? threads : 1;
    return (fn_rows){
        .data = t->x.data,
        .index = (const int64_t *)pointer(t->args->index) + offsets[0],
        .bytes = bytes,
        .begin = rows * number / team,
        .end = rows * (number + 1) / team,
    };
}

/* A step that is not to be: the running statistics are again what they were before it. */
static void refuse(fn_train_args *args, int64_t status) {
    if (args->buffers_bytes)
        memcpy(pointer(args->context.segment[FN_BUFFERS]), pointer(args->buffers_kept),
               (size_t)args->buffers_bytes);
    args->status = status;
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
    if (!isfinite(loss))
        refuse(args, FN_NOT_FINITE);
}

/* What kernels of each step's backward may do of the update: nothing where something comes before it. */
static void begin_update(fn_update *u, const fn_train_args *args) {
    const int free = !args->collect_count && !args->guard_count && !args->updates && !args->norm;
    u->program = pointer(args->update);
    u->end = u->program + (free ? args->update_count : 0);
    u->backward_end = (const fn_instruction *)pointer(args->backward) + args->backward_count;
    u->hyper_size = args->context.hyper_size;
    u->pending = NULL;
}

/* An update instruction's elements from `from` on that nobody has taken, up to the next that somebody has; none where
 * no such are left. */
static fn_range left_over(const fn_update *u, const fn_instruction *at, int64_t from) {
    for (;;) {
        fn_range r = {from, at->size[0]};
        int64_t next = from;
        for (int64_t i = 0; i < u->count; i++) {
            const fn_taken *t = &u->taken[i];
            if (t->at == at && t->begin <= from && t->end > next)
                next = t->end;
            else if (t->at == at && t->begin > from && t->begin < r.end)
                r.end = t->begin;
        }
        if (next == from)
            return r;
        from = next;
    }
}

/* This thread's part of a program of updates, but for what has been taken. */
static void run_left_over(const fn_instruction *program, const fn_instruction *end, const fn_context *context,
                          fn_member *member, const fn_update *u) {
    const fn_instruction *rest = program; /* from here on nobody has taken anything */
    for (int64_t i = 0; i < u->count; i++)
        rest = u->taken[i].at >= rest ? u->taken[i].at + 1 : rest;
    for (const fn_instruction *at = program; at < rest; at++) {
        fn_instruction part = *at;
        for (fn_range r = left_over(u, at, 0); r.begin < r.end; r = left_over(u, at, r.end)) {
            part.size[0] = r.end - r.begin;
            for (int i = 0; i < FN_TENSORS; i++)
                part.offset[i] = at->offset[i] + r.begin * fn_bytes_of(at->dtype);
            run_program(&part, 1, context, member, NULL, NULL);
        }
    }
    run_program(rest, end - rest, context, member, NULL, NULL);
}

/* This thread's part of what follows the backward of a step; whether all is well. */
static int update(fn_train_args *args, int64_t step, const fn_context *context, fn_member *member,
                  const fn_update *ahead) {
    const fn_instruction *program = pointer(args->update);
    const int64_t *updates = pointer(args->updates), first = args->collect_count;
    const int64_t guarded = first + args->guard_count;
    run_program(program, first, context, member, NULL, NULL);
    if (updates && !updates[step])
        return 1;
    run_program(program + first, args->guard_count, context, member, NULL, NULL);
    if (args->norm && !isfinite(*(const double *)pointer(args->norm)))
        return 0;
    run_left_over(program + guarded, program + args->update_count, context, member, ahead);
    return 1;
}

/* This thread's part of all steps. The team's first does what is not shared; the others wait for it. */
static void train_as(fn_member *member, void *argument) {
    const training *t = argument;
    fn_train_args *args = t->args;
    const fn_call call = {.member = member};
    const int64_t *offsets = pointer(args->batch_offsets), *index = pointer(args->index);
    fn_context context = args->context;
    fn_update ahead;
    begin_update(&ahead, args);
    for (int64_t s = 0; s < args->steps; s++) {
        context.rows = offsets[s + 1] - offsets[s];
        context.step = args->context.step + (uint64_t)s;
        gather_minibatch(&call, t, index + offsets[s], &context);
        if (is_first(&call) && args->buffers_bytes)
            memcpy(pointer(args->buffers_kept), pointer(args->context.segment[FN_BUFFERS]),
                   (size_t)args->buffers_bytes);
        together(&call);
        if (args->status != FN_OK)
            return;
        run_program(pointer(args->forward), args->forward_count, &context, member, NULL, NULL);
        if (is_first(&call))
            record(args, s, offsets[s], context.rows);
        together(&call);
        if (args->status != FN_OK)
            return;
        fn_rows soon = rows_ahead(t, offsets + s + 1, s + 1 < args->steps, member, context.threads);
        const int64_t hyper = args->hyper + s * args->groups * context.hyper_size * (int64_t)sizeof(double);
        ahead.hyper = pointer(hyper);
        ahead.count = 0;
        run_program(pointer(args->backward), args->backward_count, &context, member,
                    soon.begin < soon.end ? &soon : NULL, &ahead);
        context.hyper = hyper;
        const int well = update(args, s, &context, member, &ahead);
        context.hyper = 0;
        if (is_first(&call))
            args->beside = ahead.count;
        if (is_first(&call) && well)
            args->done = s + 1;
        else if (is_first(&call))
            refuse(args, FN_NORM_NOT_FINITE);
        if (!well)
            return;
    }
}

void fn_train(fn_train_args *args) {
    args->status = FN_OK;
    args->done = 0;
    training t = {
        .args = args,
        .gather = fn_data_functions_of(args->dtype)->gather,
        .x = {pointer(args->x), args->x_kind, args->x_width, pointer(args->x_stage)},
        .y = {pointer(args->y), args->y_kind, args->y_width, pointer(args->y_stage)},
        .w = {pointer(args->w), args->dtype, 1, pointer(args->w_stage)},
    };
    fn_run_team(args->context.threads, train_as, &t);
}
