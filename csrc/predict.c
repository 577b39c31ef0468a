/* Prediction: a forward program over blocks of rows, straight from the caller's array to the caller's. */
#include <string.h>

#include "call.h"

/* Whether a number with all bits of this mask set is among n words: an infinity or a NaN. */
static int not_finite_32(const uint32_t *word, int64_t n) {
    const uint32_t mask = 0x7F800000u;
    uint32_t found = 0;
    for (int64_t i = 0; i < n; i++)
        found |= (uint32_t)0 - (uint32_t)((word[i] & mask) == mask);
    return found != 0;
}

static int not_finite_64(const uint64_t *word, int64_t n) {
    const uint64_t mask = 0x7FF0000000000000u;
    uint64_t found = 0;
    for (int64_t i = 0; i < n; i++)
        found |= (uint64_t)0 - (uint64_t)((word[i] & mask) == mask);
    return found != 0;
}

int64_t fn_predict(const fn_predict_args *args, const void *x, int64_t rows, void *out) {
    const char *from = x;
    char *to = out;
    const int64_t x_bytes = rows * args->x_bytes, out_bytes = rows * args->output_bytes;
    if (from < to + out_bytes && to < from + x_bytes)
        return FN_OVERLAP;
    if (args->dtype == FN_FLOAT64 ? not_finite_64(x, x_bytes / 8) : not_finite_32(x, x_bytes / 4))
        return FN_NOT_FINITE;
    fn_context context = args->context;
    for (int64_t done = 0; done < rows; done += args->max_rows) {
        context.rows = rows - done < args->max_rows ? rows - done : args->max_rows;
        context.threads = context.rows < args->rows_to_share ? 1 : args->context.threads;
        context.segment[FN_X] = (int64_t)(intptr_t)from + done * args->x_bytes;
        fn_run((const fn_instruction *)(intptr_t)args->forward, args->forward_count, &context);
        const void *output = args->output ? (const void *)(intptr_t)args->output
                                          : (const void *)(intptr_t)context.segment[FN_X];
        memcpy(to + done * args->output_bytes, output, (size_t)(context.rows * args->output_bytes));
    }
    return FN_OK;
}
