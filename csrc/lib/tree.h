/* Trees of classes: the tables of fastnet/layers/class_tree.py. */
#ifndef FASTNET_TREE_H
#define FASTNET_TREE_H

#include "lib/softmax.h"

/* The columns of a table of nodes, and of one of spans. */
enum { ABOVE, PLACE, FIRST_ROW, CHILDREN, NODE_COLUMNS };
enum { FIRST_CHILD, FIRST_LEAF, END_OF_LEAVES, SPAN_COLUMNS };

/* How many rows of weights the decision of a node has. */
static inline int64_t rows_of_decision(const int64_t *node) { return node[CHILDREN] == 2 ? 1 : node[CHILDREN]; }

#endif
