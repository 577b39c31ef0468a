/* Runs a program over blocks of rows, from the caller's input array to the caller's output array. */
#include <string.h>

#include "engine/call.h"
#include "engine/gather.h"

int64_t fn_predict(const fn_predict_args *args, const void *x, int64_t rows, void *out) {
    const char *from = x;
    char *to = out;
    const int64_t x_bytes = rows * args->x_bytes, out_bytes = rows * args->output_bytes;
    if (from < to + out_bytes && to < from + x_bytes)
        return FN_OVERLAP;
    if (!fn_data_functions_of(args->dtype)->all_finite(x, x_bytes / fn_bytes_of(args->dtype)))
        return FN_NOT_FINITE;
    fn_context context = args->context;
    for (int64_t done = 0; done < rows; done += args->max_rows) {
        const int64_t now = rows - done < args->max_rows ? rows - done : args->max_rows;
        const char *const block = from + done * args->x_bytes;
        context.rows = now;
        context.threads = now < args->rows_to_share ? 1 : args->context.threads;
        if (args->x)
            memcpy((void *)(intptr_t)args->x, block, (size_t)(now * args->x_bytes));
        else
            context.segment[FN_X] = (int64_t)(intptr_t)block;
        fn_run((const fn_instruction *)(intptr_t)args->forward, args->forward_count, &context);
        const void *output = args->output ? (const void *)(intptr_t)args->output
                                          : (const void *)(intptr_t)context.segment[FN_X];
        memcpy(to + done * args->output_bytes, output, (size_t)(now * args->output_bytes));
    }
    return FN_OK;
}
