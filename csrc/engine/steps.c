/* Training steps; see TRAIN in fastnet/plan/records.py. */
#define _GNU_SOURCE
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "engine/gather.h"
#include "engine/program.h"

/* The rows where they lie, if they are one run of the data set and have the plan's dtype; else NULL. */
static const void *in_place(const fn_source *s, const int64_t *index, int64_t rows, int64_t dtype) {
    if (s->kind != dtype || s->scale || s->begins)
        return NULL;
    for (int64_t r = 1; r < rows; r++)
        if (index[r] != index[r - 1] + 1)
            return NULL;
    return rows ? (const char *)s->data + index[0] * s->width * fn_bytes_of(s->kind) : NULL;
}

/* Copy labels and check the copies: the caller may change the data set meanwhile. Returns the first row of the data set
 * whose label is neither in [0, classes) nor `ignored`, or -1. */
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

/* Rows of the next step are prefetched for minibatches of at most MAX_PREFETCH bytes: the update would evict more of
 * them before they are read. Rows shorter than MIN_PREFETCHED_ROW are not: a tile prefetches from one row only, and
 * gets too little of them done. Measured: docs/tuning.md. */
enum { MAX_PREFETCH = 1 << 18, MIN_PREFETCHED_ROW = 4 * FN_LINE };

/* When a thread looks at the clock: so seldom that it costs nothing, and often enough to be late by two intervals. */
enum { LOOK_NANOSECONDS = 1000000 };

typedef struct {
    int64_t deadline;     /* in nanoseconds, after which no step begins but the first */
    int64_t stride, left; /* steps from one look to the next, and those until then */
    int64_t looked;
} watch;

/* A chunk of steps, as all threads of the team see it. */
typedef struct {
    fn_train_args *args;
    const fn_data_functions *functions;
    const fn_instruction *program, *update, *end;
    const fn_instruction *plain_end; /* end of the update's kernels before any control; products may do parts of them */
    const fn_instruction *keep;      /* the FN_KEEP instruction, or NULL */
    const fn_instruction *alone_until; /* the last FN_HOST_CALL before the update, or NULL */
    int64_t row_bytes;               /* of x, as the data set has it; 0: x is not gathered */
    int64_t limit;                   /* the steps before it are run now */
    watch *clock;                    /* NULL: there is no deadline. Else a thread that is alone runs the steps */
    int bad_label;                   /* the rows gathered last have one */
    int bad_params;                  /* the parameters checked last are not all finite */
    _Atomic int bad_column;          /* the rows gathered last have one */
} training;

/* One thread's way through the steps. Each thread determines the status by itself. */
typedef struct {
    training *t;
    fn_call call; /* of no kernel; it holds the thread's part in the team */
    fn_context context;
    int64_t step;
    const int64_t *offsets, *index;
    int64_t status;
    fn_update update;
} walk;

static void *tensor(const walk *w, const fn_instruction *at, int i) {
    return at->segment[i] < 0 ? NULL : pointer(w->context.segment[at->segment[i]] + at->offset[i]);
}

/* Gather the elements of sparse rows, where kernels read these. The first member does it. */
static void gather_elements(const walk *w, const fn_instruction *at, const fn_source *of_x, const int64_t *index) {
    const fn_elements to = {of_x->stage,        tensor(w, at, 3), tensor(w, at, 4), tensor(w, at, 5),
                            tensor(w, at, 6), tensor(w, at, 7), tensor(w, at, 8)};
    if (!w->t->functions->gather_elements(of_x, index, w->context.rows, &to))
        w->t->bad_column = 1;
}

/* Gather the inputs of a step: the whole team shares x, and its first member does y and w. */
static void gather(walk *w, const fn_instruction *at) {
    fn_train_args *args = w->t->args;
    fn_gather *const gather_rows = w->t->functions->gather;
    const int64_t rows = w->context.rows, *index = w->index + w->offsets[w->step];
    const fn_source of_x = {pointer(args->x), args->x_kind, at->size[0], tensor(w, at, 0),
                            args->x_scale, pointer(args->x_begins), pointer(args->x_columns)};
    const fn_source of_y = {pointer(args->y), args->y_kind, at->size[1], tensor(w, at, 1), 0, NULL, NULL};
    const fn_source of_w = {pointer(args->w), args->dtype, 1, tensor(w, at, 2), 0, NULL, NULL};
    const void *x = in_place(&of_x, index, rows, args->dtype);
    const void *y = args->classes || !of_y.stage ? NULL : in_place(&of_y, index, rows, args->dtype);
    if (at->size[2]) {
        if (is_first(&w->call))
            gather_elements(w, at, &of_x, index);
    } else if (!x)
        SHARED(r, &w->call, rows, 1 + 4096 / (of_x.width + 1))
            if (!gather_rows(&of_x, index, r.begin, r.end))
                w->t->bad_column = 1;
    if (is_first(&w->call) && of_y.stage && args->classes) {
        args->bad_row = gather_labels(&of_y, index, rows, args->classes, args->ignored);
        w->t->bad_label = args->bad_row >= 0;
    } else if (is_first(&w->call) && of_y.stage && !y) {
        gather_rows(&of_y, index, 0, rows);
    }
    if (is_first(&w->call) && of_w.stage)
        gather_rows(&of_w, index, 0, rows);
    w->context.segment[FN_X] = (int64_t)(intptr_t)(x ? x : of_x.stage);
    w->context.segment[FN_Y] = (int64_t)(intptr_t)(y ? y : of_y.stage);
    w->context.segment[FN_W] = (int64_t)(intptr_t)of_w.stage;
}

/* Save the buffers (running statistics) before a step, or restore them if `back`. */
static void keep(const walk *w, const fn_instruction *at, int back) {
    void *const kept = tensor(w, at, 0), *const buffers = pointer(w->context.segment[FN_BUFFERS]);
    memcpy(back ? buffers : kept, back ? kept : buffers, (size_t)at->size[0]);
}

/* Write out a step's loss, losses of rows, outputs and decisions. */
static void record(const walk *w, const fn_instruction *at) {
    const fn_train_args *args = w->t->args;
    const int64_t first = w->offsets[w->step], rows = w->context.rows, bytes = at->size[0];
    ((double *)pointer(args->losses))[w->step] = *(const double *)tensor(w, at, 0);
    if (args->row_losses)
        memcpy((double *)pointer(args->row_losses) + first, tensor(w, at, 1), (size_t)rows * sizeof(double));
    if (args->outputs)
        memcpy((char *)pointer(args->outputs) + first * bytes, tensor(w, at, 2), (size_t)(rows * bytes));
    if (args->decisions)
        memcpy((double *)pointer(args->decisions) + first, tensor(w, at, 3), (size_t)rows * sizeof(double));
}

/* Refuse the step if a value is not finite, and restore the buffers. */
static void check(walk *w, const fn_instruction *at) {
    const double value = *(const double *)tensor(w, at, 0);
    if (isfinite(value))
        return;
    w->status = at->size[0];
    if (is_first(&w->call)) {
        w->t->args->value = value;
        if (w->t->keep)
            keep(w, w->t->keep, 1);
    }
}

/* The first number of an instruction's row of the table. */
static double number(const walk *w, const fn_instruction *at) {
    return ((const double *)pointer(w->context.hyper))[at->group * w->context.hyper_size];
}

/* Run this thread's part of a control instruction; return where to go on. The team's first member does what is not
 * shared. */
static const fn_instruction *control(walk *w, const fn_instruction *at) {
    training *t = w->t;
    const int first = is_first(&w->call);
    switch (at->kernel) {
    case FN_KEEP: /* no barrier: one follows in FN_GATHER */
        if (first)
            keep(w, at, 0);
        break;
    case FN_GATHER:
        gather(w, at);
        together(&w->call);
        w->status = t->bad_label ? FN_BAD_LABEL : FN_OK;
        if (t->bad_column)
            w->status = FN_BAD_COLUMN;
        break;
    case FN_RECORD: /* no barrier: one follows in FN_CHECK, or in the next FN_GATHER */
        if (first)
            record(w, at);
        break;
    case FN_CHECK:
        check(w, at);
        together(&w->call);
        break;
    case FN_HOST_CALL:
        w->status = FN_HOST;
        if (first)
            t->args->at = at + 1 - t->program;
        break;
    case FN_UNLESS:
        if (!number(w, at))
            return t->end;
        break;
    case FN_FINITE:
        if (!number(w, at))
            break;
        if (first)
            t->bad_params = !t->functions->all_finite(tensor(w, at, 0), at->size[0] / fn_bytes_of(t->args->dtype));
        together(&w->call);
        w->status = t->bad_params ? at->size[1] : FN_OK;
    }
    return at + 1;
}

/* This thread's share of the rows to prefetch for the next step; empty if prefetching does not pay. */
static fn_rows rows_ahead(const walk *w) {
    const training *t = w->t;
    const int64_t *offsets = w->offsets + w->step + 1, bytes = t->row_bytes;
    const int64_t given = bytes >= MIN_PREFETCHED_ROW && w->step + 1 < t->args->steps ? offsets[1] - offsets[0] : 0;
    const int64_t rows = given * bytes > MAX_PREFETCH ? 0 : given;
    const fn_member *member = w->call.member;
    const int64_t number = member ? member->number : 0, team = member ? w->context.threads : 1;
    return (fn_rows){
        .data = pointer(t->args->x),
        .index = w->index + offsets[0],
        .bytes = bytes,
        .begin = rows * number / team,
        .end = rows * (number + 1) / team,
    };
}

/* The next range of an update instruction's elements, at or after `from`, that no product has updated; empty if
 * there is none. */
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

/* How many of an update instruction's elements no product has updated. */
static int64_t count_left_over(const fn_update *u, const fn_instruction *at) {
    int64_t left = at->size[0];
    for (int64_t i = 0; i < u->count; i++)
        left -= u->taken[i].at == at ? u->taken[i].end - u->taken[i].begin : 0;
    return left;
}

/* Run this thread's part of those update instructions of which products have done a part: what these left over. Returns
 * the first instruction after them. */
static const fn_instruction *run_left_over(const fn_instruction *update, const fn_context *context, fn_member *member,
                                           const fn_update *u) {
    const fn_instruction *rest = update;
    for (int64_t i = 0; i < u->count; i++)
        rest = u->taken[i].at >= rest ? u->taken[i].at + 1 : rest;
    for (const fn_instruction *at = update; at < rest; at++) {
        if (!count_left_over(u, at))
            continue;
        fn_instruction part = *at;
        for (fn_range r = left_over(u, at, 0); r.begin < r.end; r = left_over(u, at, r.end)) {
            part.size[0] = r.end - r.begin;
            for (int i = 0; i < FN_TENSORS; i++)
                part.offset[i] = at->offset[i] + r.begin * fn_bytes_of(at->dtype);
            run_program(&part, &part + 1, context, member, NULL);
        }
    }
    return rest;
}

/* Run this thread's part of a step from an instruction on; return whether the step is done. */
static int run_step(walk *w, const fn_instruction *at) {
    const training *t = w->t;
    fn_update *update = &w->update;
    fn_rows rows = rows_ahead(w);
    const fn_side_work side_work = {rows.begin < rows.end ? &rows : NULL, update};
    update->hyper = pointer(w->context.hyper);
    update->count = 0;
    const int is_last = w->step + 1 == t->args->steps && !t->args->goes_on;
    update->keeps_gradients = is_last || t->clock; /* after which any step may be the last */
    while (at < t->update) {
        /* What products interleave of the update is forgotten where a call ends within a step. */
        const fn_side_work *side = at > t->alone_until ? &side_work : NULL;
        at = run_program(at, t->update, &w->context, w->call.member, side);
        if (at < t->update)
            at = control(w, at);
        if (w->status != FN_OK)
            return 0;
    }
    if (update->count)
        at = run_left_over(at, &w->context, w->call.member, update);
    while (at < t->end) {
        at = run_program(at, t->end, &w->context, w->call.member, NULL);
        if (at < t->end)
            at = control(w, at);
        if (w->status != FN_OK)
            return 0;
    }
    return 1;
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Whether a step may begin. */
static int in_time(watch *c) {
    if (!c || c->left--)
        return 1;
    const int64_t time = now(), since = time - c->looked;
    if (c->looked)
        c->stride = since < LOOK_NANOSECONDS ? 2 * c->stride : 1 + c->stride / 2;
    c->looked = time;
    c->left = c->stride - 1;
    return time < c->deadline;
}

/* Run this thread's part of the steps before the limit. */
static void train_as(fn_member *member, void *argument) {
    training *t = argument;
    fn_train_args *args = t->args;
    walk w;
    w.t = t;
    w.call = (fn_call){.member = member};
    w.context = args->context;
    w.offsets = pointer(args->batch_offsets);
    w.index = pointer(args->index);
    w.status = FN_OK;
    w.update.program = t->update;
    w.update.end = t->plain_end;
    w.update.backward_end = t->update;
    w.update.hyper_size = w.context.hyper_size;
    w.update.queue = NULL;
    w.update.count = 0;
    const fn_instruction *at = t->program + args->at;
    for (w.step = args->done; w.step < t->limit && in_time(t->clock); w.step++) {
        w.context.rows = w.offsets[w.step + 1] - w.offsets[w.step];
        if (!run_step(&w, at))
            break;
        at = t->program;
        w.context.step++;
        w.context.hyper += args->table_bytes;
        w.context.segment[FN_SCHEDULE] += args->schedule_bytes;
    }
    if (!is_first(&w.call))
        return;
    args->done = w.step;
    args->status = w.status;
    args->interleaved = w.update.count;
    args->context = w.context;
}

static training begun(fn_train_args *args) {
    const fn_instruction *program = pointer(args->program);
    training t = {
        .args = args,
        .functions = fn_data_functions_of(args->dtype),
        .program = program,
        .update = program + args->before_update,
        .end = program + args->count,
    };
    for (const fn_instruction *at = program; at < t.end; at++) {
        if (at >= t.update && at->kernel < 0 && !t.plain_end)
            t.plain_end = at;
        if (at->kernel == FN_KEEP)
            t.keep = at;
        if (at->kernel == FN_HOST_CALL && at < t.update)
            t.alone_until = at;
        if (at->kernel == FN_GATHER)
            t.row_bytes = args->x_begins ? 0 : at->size[0] * fn_bytes_of(args->x_kind);
    }
    if (!t.plain_end)
        t.plain_end = t.end;
    return t;
}

/* Run the steps before `limit`: with a clock on this thread alone, until it is late. Returns whether all are done. */
static int run_until(fn_train_args *args, int64_t limit, watch *clock) {
    training t = begun(args);
    t.limit = limit;
    t.clock = clock;
    if (clock)
        train_as(NULL, &t);
    else
        fn_run_team(args->context.threads, train_as, &t);
    return args->status == FN_OK && args->done == limit;
}

/* Keep the values that an epoch has left, and let the next evaluation write behind this one. */
static void end_epoch(fn_train_args *args, fn_train_args *evaluation) {
    const int64_t rows = ((const int64_t *)pointer(evaluation->batch_offsets))[evaluation->steps];
    const int64_t bytes = args->params_bytes + args->buffers_bytes;
    if (args->kept) {
        char *const into = (char *)pointer(args->kept) + args->evaluated * bytes;
        memcpy(into, pointer(args->context.segment[FN_PARAMS]), (size_t)args->params_bytes);
        memcpy(into + args->params_bytes, pointer(args->context.segment[FN_BUFFERS]), (size_t)args->buffers_bytes);
    }
    evaluation->row_losses += rows * (int64_t)sizeof(double);
    if (evaluation->decisions)
        evaluation->decisions += rows * (int64_t)sizeof(double);
    evaluation->done = 0;
    args->evaluated++;
}

/* Run the steps of a chunk, and after each epoch its evaluation, if it has one. */
static void train(fn_train_args *args, watch *clock) {
    watch another = clock ? *clock : (watch){0}, *const other = clock ? &another : NULL; /* its steps take longer */
    fn_train_args *const evaluation = pointer(args->evaluation);
    if (!evaluation) {
        run_until(args, args->steps, clock);
        return;
    }
    for (;;) {
        const int64_t end = (args->evaluated + 1) * args->epoch, limit = end < args->steps ? end : args->steps;
        if (args->done < limit && !run_until(args, limit, clock))
            return;
        if (args->done < end)
            return;
        const int64_t from = now();
        const int done = run_until(evaluation, evaluation->steps, other);
        args->seconds += 1e-9 * (double)(now() - from);
        if (!done)
            return;
        end_epoch(args, evaluation);
    }
}

void fn_train(fn_train_args *args) { train(args, NULL); }

/* Chunks of many nets, as all threads see them. */
typedef struct {
    const int64_t *nets; /* addresses of fn_train_args */
    int64_t count, deadline;
    double *seconds;
    _Atomic int64_t taken;
} crowd;

/* Train one net after the other, each of which no other thread has taken. */
static void train_some(fn_member *member, void *argument) {
    (void)member; /* a net's own thread is alone */
    crowd *c = argument;
    for (int64_t i; (i = atomic_fetch_add(&c->taken, 1)) < c->count;) {
        const int64_t from = now();
        if (i && from >= c->deadline)
            return;
        watch clock = {.deadline = c->deadline, .stride = 1, .left = 1}; /* the first step begins in any case */
        train(pointer(c->nets[i]), &clock);
        c->seconds[i] = 1e-9 * (double)(now() - from);
    }
}

void fn_train_many(const int64_t *nets, int64_t count, int64_t threads, double limit, double *seconds) {
    crowd c = {.nets = nets, .count = count, .deadline = now() + (int64_t)(1e9 * limit), .seconds = seconds};
    fn_run_team(threads < count ? threads : count, train_some, &c);
}
