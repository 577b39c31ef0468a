/* Gated linear units. Formulas: fastnet/layers/gated.py. x = [a, b] has N = 2H columns. */
#include "engine/share.h"
#include "lib/formula.h"

/* Each row, and of its halves LANES columns from the j-th on. */
#define HALVES(r, b, j)                                                                            \
    SHARED(r, call, call->rows, 1 + 256 / H)                                                       \
        for (int64_t b = r.begin; b < r.end; b++)                                                  \
            for (int64_t j = 0; j < H; j += LANES)

#define GATED_FORWARD(name, formula)                                                               \
    KERNEL(name##_forward, OUT(y), IN(x)) {                                                        \
        const int64_t H = call->size[0], N = call->size[1];                                        \
        HALVES(r, row, j) {                                                                        \
            const real *const first = x + row * N, *const second = first + H;                      \
            real *const to = y + row * H;                                                          \
            INPUT_LANES(first, j, H);                                                              \
            INPUT_LANES(second, j, H);                                                             \
            OUTPUT_LANES(to, j, H);                                                                \
            EACH_LANE(l) {                                                                         \
                const real a = first_at[l], b = second_at[l];                                      \
                to_at[l] = formula;                                                                \
            }                                                                                      \
            STORE_REST(to, j, H);                                                                  \
        }                                                                                          \
    }

#define GATED_VJP(name, gate_of, of_a, of_b)                                                       \
    KERNEL(name##_vjp, OUT(dx), IN(dy), IN(x)) {                                                   \
        const int64_t H = call->size[0], N = call->size[1];                                        \
        HALVES(r, row, j) {                                                                        \
            const real *const first = x + row * N, *const second = first + H, *const dy_ = dy + row * H; \
            real *const da = dx + row * N, *const db = da + H;                                     \
            INPUT_LANES(first, j, H);                                                              \
            INPUT_LANES(second, j, H);                                                             \
            INPUT_LANES(dy_, j, H);                                                                \
            OUTPUT_LANES(da, j, H);                                                                \
            OUTPUT_LANES(db, j, H);                                                                \
            EACH_LANE(l) {                                                                         \
                const real a = first_at[l], b = second_at[l], d = dy__at[l];                       \
                const real gate = real_sigmoid(gate_of), rest = real_sigmoid(-(gate_of));          \
                da_at[l] = of_a;                                                                   \
                db_at[l] = of_b;                                                                   \
            }                                                                                      \
            STORE_REST(da, j, H);                                                                  \
            STORE_REST(db, j, H);                                                                  \
        }                                                                                          \
    }

GATED_FORWARD(glu, a *real_sigmoid(b))
GATED_VJP(glu, b, d *gate, d *a *gate *rest)
GATED_FORWARD(swiglu, a *real_sigmoid(a) * b)
GATED_VJP(swiglu, a, d *b *gate *madd(a, rest, 1), d *(a * gate))
