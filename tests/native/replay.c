/* Runs recorded jobs on another machine, or in another build, without Python:
 *
 *     replay LEVEL THREADS < jobs > results
 *
 * A job is memory in blocks, where they hold addresses and kernels' entries, and what to call; see
 * tests/support/recorded.py, which writes it. Every block lies in a piece of the heap that ends with it, for
 * sanitizers to watch. The results are the blocks that are asked for, as the call leaves them.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/fastnet.h"

enum { MOST_BLOCKS = 64 };

typedef struct {
    int64_t size, shift, wanted; /* bytes; its address modulo 64; whether it is a result */
} block;

typedef struct {
    int64_t block, offset; /* where the address stands */
    int64_t to, at;        /* the block and the place in it that it is of */
} address;

typedef struct {
    int64_t block, offset; /* where the entry's address stands */
    int64_t dtype;
    char name[64];
} entry;

typedef struct {
    int64_t blocks, addresses, entries;
    int64_t training;       /* 1: fn_train(args); 0: fn_run(program, count, context) */
    int64_t argument;       /* the block of args, or of the context */
    int64_t program, count; /* the program's block and its instructions */
} job;

static void fail(const char *why) {
    fprintf(stderr, "replay: %s\n", why);
    exit(1);
}

/* That many bytes behind an address that is a multiple of 64, which free takes. */
static char *allocated(int64_t bytes) {
    void *memory;
    if (posix_memalign(&memory, 64, (size_t)bytes))
        fail("out of memory");
    return memory;
}

static void take(void *to, int64_t bytes) {
    if (bytes && fread(to, (size_t)bytes, 1, stdin) != 1)
        fail("the jobs end early");
}

/* `count` records of a job. */
static void *table(int64_t count, int64_t bytes) {
    void *records = allocated(count * bytes);
    take(records, count * bytes);
    return records;
}

static int64_t entry_of(const entry *wanted, int64_t level) {
    fn_kernel_info info = {0}, best = {.level = -1};
    for (int64_t i = 0; i < fn_kernel_count(); i++) {
        fn_kernel_at(i, &info);
        if (!strcmp(info.name, wanted->name) && info.dtype == wanted->dtype && info.level <= level &&
            info.level > best.level)
            best = info;
    }
    if (best.level < 0)
        fail(wanted->name);
    return best.entry;
}

static void put(char *at, int64_t value) { memcpy(at, &value, sizeof value); }

static void replay(job j, int64_t level, int64_t threads, void *scratch) {
    block *blocks = table(j.blocks, sizeof(block));
    address *addresses = table(j.addresses, sizeof(address));
    entry *entries = table(j.entries, sizeof(entry));
    char *memory[MOST_BLOCKS] = {0};
    if (j.blocks > MOST_BLOCKS)
        fail("a job of too many blocks");
    for (int64_t i = 0; i < j.blocks; i++) {
        memory[i] = allocated(blocks[i].shift + blocks[i].size) + blocks[i].shift;
        take(memory[i], blocks[i].size);
    }
    for (int64_t i = 0; i < j.addresses; i++)
        put(memory[addresses[i].block] + addresses[i].offset,
            (int64_t)(intptr_t)memory[addresses[i].to] + addresses[i].at);
    for (int64_t i = 0; i < j.entries; i++)
        put(memory[entries[i].block] + entries[i].offset, entry_of(entries + i, level));

    fn_train_args *args = (fn_train_args *)memory[j.argument];
    fn_context *context = j.training ? &args->context : (fn_context *)memory[j.argument];
    context->scratch = (int64_t)(intptr_t)scratch;
    context->threads = threads;
    if (j.training)
        fn_train(args);
    else
        fn_run((const fn_instruction *)memory[j.program], j.count, context);

    for (int64_t i = 0; i < j.blocks; i++) {
        if (blocks[i].wanted && blocks[i].size &&
            fwrite(memory[i], (size_t)blocks[i].size, 1, stdout) != 1)
            fail("the results cannot be written");
        free(memory[i] - blocks[i].shift);
    }
    free(blocks), free(addresses), free(entries);
}

int main(int count, char **arguments) {
    if (count != 3)
        fail("usage: replay LEVEL THREADS < jobs > results");
    const int64_t level = atoll(arguments[1]), threads = atoll(arguments[2]);
    char *scratch = allocated(threads * FN_SCRATCH);
    for (job j; fread(&j, sizeof j, 1, stdin) == 1;)
        replay(j, level < fn_machine_level() ? level : fn_machine_level(), threads, scratch);
    free(scratch);
    return 0;
}
