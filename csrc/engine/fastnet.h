/* fastnet's native interface. The build derives Python's view of it from this file. The C backend compares the structs
 * field by field with fastnet/plan/records.py, which documents the fields. */
#ifndef FASTNET_H
#define FASTNET_H

#include <stdint.h>

enum { FN_LINE = 64 }; /* bytes of a cache line */

/* cdef: begin */

enum { FN_SEGMENTS = 12, FN_TENSORS = 12, FN_SIZES = 4, FN_SCALARS = 4 };
enum { FN_SCRATCH = 1 << 20 }; /* bytes of a thread's scratch memory, aligned to cache lines */
enum { FN_MAX_THREADS = 64 };
enum { FN_FLOAT32 = 0, FN_FLOAT64 = 1, FN_UINT8 = 2, FN_INT64 = 3 };
enum { FN_OK = 0, FN_NOT_FINITE = 1, FN_BAD_LABEL = 2, FN_OVERLAP = 3, FN_NORM_NOT_FINITE = 4, FN_HOST = 5,
       FN_PARAMS_NOT_FINITE = 6, FN_BAD_COLUMN = 7 };
enum { FN_PARAMS, FN_GRADS, FN_BUFFERS, FN_STATE, FN_WORKSPACE, FN_DERIVED, FN_X, FN_Y, FN_W, FN_TRAINING, FN_STAGE,
       FN_SCHEDULE };
enum { FN_FINITE = -7, FN_UNLESS, FN_CHECK, FN_HOST_CALL, FN_RECORD, FN_GATHER, FN_KEEP }; /* the `kernel` of controls */

typedef struct {
    int32_t kernel;
    int32_t dtype;
    int64_t stream;
    int64_t group;
    int64_t accumulate;
    int64_t more_rows;
    int64_t entry;
    int64_t epilogue;
    int64_t relu_mask;
    int64_t foreign;
    int32_t segment[FN_TENSORS];
    int64_t offset[FN_TENSORS];
    int64_t size[FN_SIZES];
    double scalar[FN_SCALARS];
} fn_instruction;

typedef struct {
    int64_t segment[FN_SEGMENTS];
    int64_t hyper;
    int64_t hyper_size;
    int64_t rows;
    uint64_t seed;
    uint64_t step;
    int64_t accumulate;
    int64_t scratch;
    int64_t threads;
    int64_t elements_to_fuse;
} fn_context;

typedef struct {
    fn_context context;
    int64_t dtype;
    int64_t program, count, before_update, at;
    int64_t x, x_kind;
    double x_scale;
    int64_t x_begins, x_columns;
    int64_t y, y_kind, classes, ignored;
    int64_t w;
    int64_t batch_offsets, index;
    int64_t table_bytes, schedule_bytes;
    int64_t losses, row_losses, outputs, decisions;
    int64_t steps, done, status, bad_row;
    double value;
    int64_t interleaved;
    int64_t evaluation, epoch, evaluated;
    int64_t kept, params_bytes, buffers_bytes;
    double seconds;
    int64_t goes_on;
} fn_train_args;

typedef struct {
    fn_context context;
    int64_t dtype;
    int64_t forward, forward_count;
    int64_t max_rows;
    int64_t rows_to_share;
    int64_t x, x_bytes;
    int64_t output, output_bytes;
} fn_predict_args;

/* A kernel of this build. */
typedef struct {
    const char *name, *tensors; /* as in the reference: the name, and the argument list */
    int64_t dtype;
    int64_t level;     /* of the instruction set; 0: any machine of this architecture */
    int64_t entry;     /* address */
    int64_t epilogue;  /* the address of its form as another kernel's epilogue, or 0 */
    int64_t fuses;     /* what epilogues it calls: an fn_fusing */
    int64_t relu_mask; /* which ReLU it is, where tiles of a product apply it in registers: an fn_relu_mask */
} fn_kernel_info;

/* Elementwise kernels of other code, such as Numba's: an instruction whose `foreign` is the address of an fn_foreign (see
 * engine/call.h) has the first of these for its entry. As another kernel's epilogue it has the second. */
int64_t fn_foreign_entry(void);
int64_t fn_foreign_epilogue(void);

int64_t fn_kernel_count(void);
void fn_kernel_at(int64_t i, fn_kernel_info *info);

/* The highest level that this machine runs, and a level's name. */
int64_t fn_machine_level(void);
const char *fn_level_name(int64_t level);

/* The digest of the sources of this build: SHA-256 over the SHA-256 of each source file, in the order of their
 * paths. */
const char *fn_source_digest(void);

/* Run a program's instructions in order. */
void fn_run(const fn_instruction *program, int64_t count, const fn_context *context);

/* Run training steps until args->steps are done; see TRAIN in records.py. Neither calls Python nor allocates memory. */
void fn_train(fn_train_args *args);

/* The same for each of many nets, whose fn_train_args have these addresses: a net's steps run on one thread, and each
 * thread takes the next net. No step begins after `limit` seconds, so that some nets may have steps left. seconds[i]
 * becomes the time that net i took, if it ran. */
void fn_train_many(const int64_t *nets, int64_t count, int64_t threads, double limit, double *seconds);

/* Compute the output for rows of x, max_rows at a time; see PREDICT in records.py. Returns FN_OK, or, with `out`
 * untouched, FN_NOT_FINITE if x holds NaN or infinity and FN_OVERLAP if x and out share memory. */
int64_t fn_predict(const fn_predict_args *args, const void *x, int64_t rows, void *out);

/* The orders of n rows in `epochs` epochs, one after the other: see permutation in fastnet/random.py. `room` has room
 * for n numbers. */
void fn_orders(uint64_t seed, int64_t stream, uint64_t first_epoch, int64_t epochs, int64_t n, int64_t *orders,
               uint64_t *room);

/* n draws of 64 bits from draw `first` on: see words64 in fastnet/random.py. */
void fn_draws(uint64_t seed, int64_t stream, uint64_t step, int64_t first, int64_t n, uint64_t *drawn);

/* cdef: end */

#endif
