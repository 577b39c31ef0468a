/* Elementwise kernels of other code: they share their elements among threads as those of this build do. */
#include "engine/share.h"

static void run_range(const fn_call *call, int64_t begin, int64_t end) {
    void *tensors[FN_TENSORS];
    for (int i = 0; i < FN_TENSORS; i++)
        tensors[i] = fn_tensor(call, i);
    ((fn_foreign *)(intptr_t)call->at->foreign)(tensors, call->scalar, begin, end);
}

static void entry(const fn_call *call) {
    SHARED(r, call, call->rows * call->size[0], 2048)
        run_range(call, r.begin, r.end);
}

static void epilogue(const fn_call *call, int64_t first, int64_t stride, int64_t rows, int64_t n) {
    for (int64_t at = first; rows > 0; rows--, at += stride)
        run_range(call, at, at + n);
}

int64_t fn_foreign_entry(void) { return (int64_t)(intptr_t)entry; }

int64_t fn_foreign_epilogue(void) { return (int64_t)(intptr_t)epilogue; }
