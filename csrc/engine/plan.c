/* The registry of kernels, and running a program; see fastnet/plan/records.py. */
#include <string.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "engine/gather.h"
#include "engine/program.h"

/* The linker collects the descriptors of all kernels in one section, and defines these symbols at its ends. */
extern const fn_kernel *const __start_fn_kernels[], *const __stop_fn_kernels[];

int64_t fn_kernel_count(void) { return __stop_fn_kernels - __start_fn_kernels; }

/* Levels of the instruction set, numbered as CMakeLists.txt compiles them. Only AVX-512 tiles apply ReLU masks; see
 * MASKS_IN_TILES. */
#if defined(__x86_64__)
enum { SCALAR_LEVEL = HAS_SCALAR_LEVEL, AVX2_LEVEL, AVX512_LEVEL, BFLOAT16_LEVEL, MASKING_LEVEL = AVX512_LEVEL };
#else
enum { BFLOAT16_LEVEL = 1, MASKING_LEVEL = -1 };
#endif

static fn_relu_mask relu_mask(const fn_kernel *kernel) {
    if (kernel->level != MASKING_LEVEL)
        return FN_MASK_NONE;
    return !strcmp(kernel->name, "relu_forward") ? FN_MASK_OF_ITSELF
           : !strcmp(kernel->name, "relu_vjp")   ? FN_MASK_OF_OTHER
                                                 : FN_MASK_NONE;
}

void fn_kernel_at(int64_t i, fn_kernel_info *info) {
    const fn_kernel *kernel = __start_fn_kernels[i];
    *info = (fn_kernel_info){kernel->name, kernel->tensors, kernel->dtype, kernel->level,
                             (int64_t)(intptr_t)kernel->entry, (int64_t)(intptr_t)kernel->epilogue,
                             kernel->fuses, relu_mask(kernel)};
}

fn_entry *fn_entry_of(const char *name, int64_t dtype, int64_t level) {
    const fn_kernel *best = NULL;
    for (int64_t i = 0; i < fn_kernel_count(); i++) {
        const fn_kernel *kernel = __start_fn_kernels[i];
        if (kernel->dtype == dtype && kernel->level <= level && (!best || kernel->level > best->level) &&
            !strcmp(kernel->name, name))
            best = kernel;
    }
    return best ? best->entry : NULL;
}

#if defined(__x86_64__)
static const char *const level_names[] = {
    [0] = "x86-64",
#if HAS_SCALAR_LEVEL
    [SCALAR_LEVEL] = "x86-64-fma",
#endif
    [AVX2_LEVEL] = "x86-64-v3",
    [AVX512_LEVEL] = "x86-64-v4",
    [BFLOAT16_LEVEL] = "x86-64-v4-bf16",
};

int64_t fn_machine_level(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v4"))
        return __builtin_cpu_supports("avx512bf16") ? BFLOAT16_LEVEL : AVX512_LEVEL;
    return __builtin_cpu_supports("x86-64-v3") ? AVX2_LEVEL
           : __builtin_cpu_supports("fma")     ? SCALAR_LEVEL /* 0 where it is not compiled */
                                                 : 0;
}
#else
static const char *const level_names[] = {"aarch64", [BFLOAT16_LEVEL] = "aarch64-bf16"};

#ifndef HWCAP2_BF16 /* as in headers of Linux before 5.6 */
#define HWCAP2_BF16 (1 << 14)
#endif

int64_t fn_machine_level(void) { return getauxval(AT_HWCAP2) & HWCAP2_BF16 ? BFLOAT16_LEVEL : 0; }
#endif

const char *fn_level_name(int64_t level) {
    const int64_t count = sizeof level_names / sizeof *level_names;
    return level >= 0 && level < count ? level_names[level] : "unknown";
}

const char *fn_source_digest(void) { return FASTNET_SOURCE_DIGEST; }

typedef struct {
    const fn_instruction *program;
    int64_t count;
    const fn_context *context;
} run;

static void run_as(fn_member *member, void *argument) {
    const run *r = argument;
    run_program(r->program, r->program + r->count, r->context, member, NULL);
}

void fn_run(const fn_instruction *program, int64_t count, const fn_context *context) {
    run r = {program, count, context};
    fn_run_team(context->threads, run_as, &r);
}

extern const fn_data_functions *const __start_fn_data_functions[], *const __stop_fn_data_functions[];

const fn_data_functions *fn_data_functions_of(int64_t dtype) {
    static const fn_data_functions *found[2]; /* a cache; every thread stores the same value */
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

void fn_orders(uint64_t seed, int64_t stream, uint64_t first_epoch, int64_t epochs, int64_t n, int64_t *orders,
               uint64_t *room) {
    fn_order *const order = fn_data_functions_of(FN_FLOAT32)->order;
    for (int64_t e = 0; e < epochs; e++)
        order(seed, stream, first_epoch + (uint64_t)e, n, orders + e * n, room);
}

void fn_draws(uint64_t seed, int64_t stream, uint64_t step, int64_t first, int64_t n, uint64_t *drawn) {
    fn_data_functions_of(FN_FLOAT32)->draw(seed, stream, step, first, n, drawn);
}
