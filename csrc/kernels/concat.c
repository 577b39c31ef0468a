/* Columns of two tensors side by side. Formulas: fastnet/layers/joining.py. */
#include <string.h>

#include "engine/share.h"
#include "lib/kernel.h"

KERNEL(concat_forward, OUT(y), IN(a), IN(b)) {
    const int64_t I = call->size[0], O = call->size[1];
    SHARED(r, call, call->rows, 16)
        for (int64_t i = r.begin; i < r.end; i++) {
            memcpy(y + i * (I + O), a + i * I, I * sizeof(real));
            memcpy(y + i * (I + O) + I, b + i * O, O * sizeof(real));
        }
}

KERNEL(concat_vjp, OUT(da), OUT(db), IN(dy)) {
    const int64_t I = call->size[0], O = call->size[1];
    SHARED(r, call, call->rows, 16)
        for (int64_t i = r.begin; i < r.end; i++) {
            if (da)
                memcpy(da + i * I, dy + i * (I + O), I * sizeof(real));
            if (db)
                memcpy(db + i * O, dy + i * (I + O) + I, O * sizeof(real));
        }
}
