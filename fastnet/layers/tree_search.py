"""Probabilities of some classes of a tree, and the most probable class, by as few decisions as needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastnet.layers.class_tree import ABOVE, CHILDREN, FIRST_CHILD, FIRST_ROW, PLACE, ClassTree
from fastnet.layers.hierarchical import log_decisions
from fastnet.op import Array


@dataclass(frozen=True, eq=False, repr=False)
class TreeSearch:
    """A tree with the weights (R, in_features) and biases (R,) or None of its decisions.

    It computes in float64, for rows h (n, in_features), and reads the weights of the decisions that it
    needs alone.
    """

    tree: ClassTree
    weight: Array
    bias: Array | None

    def log_probabilities(self, h: Array, classes: Array) -> Array:
        """log p of these classes, float64 (n, len(classes))."""
        h, nodes = h.astype(np.float64), self.tree.nodes
        known: dict[int, Array] = {}
        found = np.zeros((len(h), len(classes)))
        for column, node in enumerate(classes.tolist()):
            while (above := int(nodes[node, ABOVE])) >= 0:
                if above not in known:
                    known[above] = self._decided(h, above)
                found[:, column] += known[above][:, nodes[node, PLACE]]
                node = above
        return found

    def most_probable(self, h: Array) -> Array:
        """The most probable class of each row, int64 (n,).

        Of the nodes that are reached, a row goes on with the most probable one. No class below a node is
        more probable than the node, so the first class that comes up is the most probable of all.
        """
        h, classes = h.astype(np.float64), self.tree.classes
        found = np.full(len(h), -1)
        reached = [(np.array([classes]), np.zeros(1)) for _ in h]  # nodes, and their log p
        active = np.arange(len(h))
        while len(active):
            chosen, above = np.empty(len(active), np.int64), np.empty(len(active))
            for at, row in enumerate(active):
                these, log_p = reached[row]
                best = int(np.argmax(np.where(np.isnan(log_p), np.inf, log_p)))
                chosen[at], above[at] = these[best], log_p[best]
                reached[row] = np.delete(these, best), np.delete(log_p, best)
            decided = chosen < classes
            found[active[decided]] = chosen[decided]
            active, chosen, above = active[~decided], chosen[~decided], above[~decided]
            for node in np.unique(chosen):
                which = np.flatnonzero(chosen == node)
                log_p = above[which, None] + self._decided(h[active[which]], int(node))
                children = self._children(int(node))
                for row, more in zip(active[which], log_p, strict=True):
                    these, before = reached[row]
                    reached[row] = (
                        np.concatenate([these, children]),
                        np.concatenate([before, more]),
                    )
        return found

    def _children(self, node: int) -> Array:
        first = int(self.tree.spans[node, FIRST_CHILD])
        return self.tree.children[first : first + int(self.tree.nodes[node, CHILDREN])]

    def _decided(self, h: Array, node: int) -> Array:
        """log p of the outcomes of a node's decision, (n, children)."""
        first, children = (int(n) for n in self.tree.nodes[node, [FIRST_ROW, CHILDREN]])
        rows = slice(first, first + (1 if children == 2 else children))
        z = h @ self.weight[rows].T.astype(np.float64)
        return log_decisions(z if self.bias is None else z + self.bias[rows])
