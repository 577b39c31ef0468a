/* The log-probabilities of all classes of a tree. Formulas: fastnet/layers/hierarchical.py. */
#include "engine/share.h"
#include "lib/tree.h"

typedef struct {
    int64_t C, N;
    const int64_t *nodes, *spans, *children, *leaves;
} tree;

/* The column of a node's first leaf. */
static inline int64_t first_column(const tree *p, int64_t node) {
    return p->leaves[p->spans[node * SPAN_COLUMNS + FIRST_LEAF]];
}

/* log Σ e^(z − top) of m logits, whose greatest is top: without the 1 of one greatest, by log1p. */
static inline real log_total(const real *z, int64_t m, real top) {
    SUM(real, ones, m, z[i] < top ? 0 : real_exp_below_0(z[i] - top))
    SUM(real, low, m, z[i] < top ? real_exp_below_0(z[i] - top) : 0)
    return real_log1p(ones - 1 + low);
}

/* A row of y. From the root downwards, a node's sum waits in the column of its first leaf, which is that of its first
 * child. */
static void forward_row(const tree *p, real *y, const real *z) {
    y[p->leaves[0]] = 0;
    for (int64_t node = p->C; node < p->N; node++) {
        const int64_t *const at = p->nodes + node * NODE_COLUMNS, m = at[CHILDREN];
        const int64_t *const child = p->children + p->spans[node * SPAN_COLUMNS + FIRST_CHILD];
        const real *const of_node = z + at[FIRST_ROW], above = y[first_column(p, node)];
        if (m == 2) {
            const real logit = *of_node, shared = real_log1p_exp(-REAL_FN(fabs)(logit));
            y[first_column(p, child[0])] = above - ((logit < 0 ? -logit : 0) + shared);
            y[first_column(p, child[1])] = above - ((logit < 0 ? 0 : logit) + shared);
            continue;
        }
        const real top = max_of(of_node, m), total = log_total(of_node, m, top);
        for (int64_t k = 0; k < m; k++)
            y[first_column(p, child[k])] = above + ((of_node[k] - top) - total);
    }
}

KERNEL(tree_log_softmax_forward, OUT(y), IN(z), IN_AS(int64_t, nodes), IN_AS(int64_t, spans), IN_AS(int64_t, children),
       IN_AS(int64_t, leaves)) {
    const tree p = {call->size[0], call->size[2], nodes, spans, children, leaves};
    SHARED(r, call, call->rows, 1)
        for (int64_t b = r.begin; b < r.end; b++)
            forward_row(&p, y + b * p.C, z + b * call->size[1]);
}

/* The sum of a row of dy over the classes below a node. */
static inline real sum_below(const tree *p, const real *dy, int64_t node) {
    const int64_t *const span = p->spans + node * SPAN_COLUMNS, *const leaf = p->leaves + span[FIRST_LEAF];
    const int64_t n = span[END_OF_LEAVES] - span[FIRST_LEAF];
    SUM(real, sum, n, dy[leaf[i]])
    return sum;
}

static void vjp_row(const tree *p, real *dz, const real *dy, const real *z) {
    for (int64_t node = p->C; node < p->N; node++) {
        const int64_t *const at = p->nodes + node * NODE_COLUMNS, m = at[CHILDREN];
        const int64_t *const child = p->children + p->spans[node * SPAN_COLUMNS + FIRST_CHILD];
        const real *const of_node = z + at[FIRST_ROW];
        real *const to = dz + at[FIRST_ROW];
        if (m == 2) {
            const real first = sum_below(p, dy, child[0]), second = sum_below(p, dy, child[1]);
            *to = first * real_sigmoid(-*of_node) - second * real_sigmoid(*of_node);
            continue;
        }
        real total, whole = 0;
        below_top(to, of_node, 1, m);
        softmax_and_log(to, &total, 1, m);
        for (int64_t k = 0; k < m; k++)
            whole += sum_below(p, dy, child[k]);
        for (int64_t k = 0; k < m; k++)
            to[k] = sum_below(p, dy, child[k]) - to[k] * whole;
    }
}

KERNEL(tree_log_softmax_vjp, OUT(dz), IN(dy), IN(z), IN_AS(int64_t, nodes), IN_AS(int64_t, spans),
       IN_AS(int64_t, children), IN_AS(int64_t, leaves)) {
    const tree p = {call->size[0], call->size[2], nodes, spans, children, leaves};
    SHARED(r, call, call->rows, 1)
        for (int64_t b = r.begin; b < r.end; b++)
            vjp_row(&p, dz + b * call->size[1], dy + b * p.C, z + b * call->size[1]);
}
