/* y ← y + x. */
#include "engine/share.h"
#include "lib/kernel.h"

KERNEL(add_to_forward, INOUT(y), IN(x)) {
    SHARED(r, call, call->rows * call->size[0], 4096)
        for (int64_t i = r.begin; i < r.end; i++)
            y[i] += x[i];
}
