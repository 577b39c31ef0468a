"""Trees of classes: how a class is chosen by a few decisions, each between the children of a node.

A tree is given by its parents: node i < C is the leaf of class i, the other nodes are inner ones, and
parents[i] is the node above node i, −1 for the root. `ClassTree` numbers the inner nodes anew, from the
root on, level by level. A node that has a single child decides nothing, and the child takes its place.

A decision between two children has one row of weights, the logit of the first child. One between m > 2
children has m rows, a logit of each, which are neighbours.
"""

from __future__ import annotations

import heapq
import math
from typing import Any

import numpy as np

from fastnet.errors import HyperparameterError, shown
from fastnet.op import Array

MOST_DECISIONS = (
    10_000  # from the root to a class: the C kernels sort those of a row in a thread's memory
)

# The columns of a table of nodes: the node above (−1: none), the node's place among its siblings, the first
# row of its decision, and the number of its children.
ABOVE, PLACE, FIRST_ROW, CHILDREN = range(4)
# Those of a table of spans: where a node's children are listed, and where its leaves begin and end in the
# order of leaves.
FIRST_CHILD, FIRST_LEAF, END_OF_LEAVES = range(3)


def two_levels(classes: int, frequencies: Array | None = None) -> Array:
    """The parents of a tree of about √C groups of about √C classes each, by falling frequency."""
    groups = math.isqrt(classes - 1) + 1
    order = np.arange(classes)
    if frequencies is not None:
        order = np.argsort(-frequencies, kind="stable")
    root = classes + groups
    parents = np.full(root + 1, root)
    parents[order] = classes + np.arange(classes) * groups // classes
    parents[root] = -1
    return parents


def huffman(frequencies: Array) -> Array:
    """The parents of Huffman's tree: it joins the two rarest nodes again and again.

    Of equally rare ones it takes the older, so that the tree does not depend on the machine.
    """
    classes = len(frequencies)
    parents = np.full(2 * classes - 1, -1)
    heap = [(float(f), i) for i, f in enumerate(frequencies)]
    heapq.heapify(heap)
    for node in range(classes, 2 * classes - 1):
        (f, first), (g, second) = heapq.heappop(heap), heapq.heappop(heap)
        parents[first] = parents[second] = node
        heapq.heappush(heap, (f + g, node))
    return parents


class ClassTree:
    """A tree of C classes as the kernels read it.

    nodes (N, 4), spans (N, 3), children (N,), leaves (C,): int64. Nodes below C are the leaves of the
    classes; node C is the root, and inner nodes come before those below them. The children of inner node j
    are children[e], children[e + 1], … from e = spans[j, FIRST_CHILD] on (the last number of `children`
    means nothing). leaves has the classes from left to right. rows: the rows of all decisions. longest: the
    most rows of the decisions that lead to one class.
    """

    def __init__(self, parents: Array, classes: int) -> None:
        """Raises HyperparameterError where these are not the parents of a tree with so many leaves."""
        _check_parents(parents, classes)
        below = _children(parents, classes)
        root = _deciding(int(np.flatnonzero(parents < 0)[0]), below, classes)
        inner, listed = [root], list[int]()
        number, children = {root: classes}, list[list[int]]()
        for node in inner:  # which grows
            found = [_deciding(child, below, classes) for child in below[node]]
            for child in found:
                if child >= classes:
                    number[child] = classes + len(inner)
                    inner.append(child)
            children.append([number.get(child, child) for child in found])
            listed += children[-1]
        found_leaves = sum(node < classes for node in listed)
        if found_leaves != classes:
            raise HyperparameterError(
                f"tree: of {classes} classes {classes - found_leaves} are not below the root, as their "
                "inner nodes form a circle; expected parents that lead to the root"
            )
        self.classes, count = classes, classes + len(inner)
        self.nodes, self.spans = np.zeros((count, 4), np.int64), np.zeros((count, 3), np.int64)
        self.children = np.array([*listed, 0], np.int64)
        self._decide(children)
        self._order_leaves(children)
        for array in (self.nodes, self.spans, self.children, self.leaves):
            array.flags.writeable = False

    def __deepcopy__(self, memo: Any) -> ClassTree:
        return self  # it never changes

    def _decide(self, children: list[list[int]]) -> None:
        """Number the rows of the decisions, and measure the paths."""
        nodes, row, listed = self.nodes, 0, 0
        nodes[self.classes, ABOVE] = -1
        rows, depth = [0] * len(nodes), [0] * len(nodes)  # of the decisions above a node
        for node, of_node in enumerate(children, self.classes):
            own = 1 if len(of_node) == 2 else len(of_node)
            nodes[node, FIRST_ROW], nodes[node, CHILDREN] = row, len(of_node)
            nodes[of_node, ABOVE], nodes[of_node, PLACE] = node, range(len(of_node))
            self.spans[node, FIRST_CHILD] = listed
            for child in of_node:
                rows[child], depth[child] = rows[node] + own, depth[node] + 1
            row, listed = row + own, listed + len(of_node)
        if max(depth) > MOST_DECISIONS:
            raise HyperparameterError(
                f"tree: {max(depth)} decisions lead to one class; expected at most {MOST_DECISIONS}"
            )
        self.rows, self.longest = row, max(rows[: self.classes])

    def _order_leaves(self, children: list[list[int]]) -> None:
        """Order the leaves so that those below each node are neighbours."""
        sizes = [1] * len(self.nodes)
        for node in range(len(self.nodes) - 1, self.classes - 1, -1):
            sizes[node] = sum(sizes[child] for child in children[node - self.classes])
        begins = [0] * len(self.nodes)
        for node, of_node in enumerate(children, self.classes):
            begin = begins[node]
            for child in of_node:
                begins[child] = begin
                begin += sizes[child]
        self.spans[:, FIRST_LEAF] = begins
        self.spans[:, END_OF_LEAVES] = np.add(begins, sizes)
        self.leaves = np.argsort(begins[: self.classes]).astype(np.int64)


def _children(parents: Array, classes: int) -> list[list[int]]:
    """The children of each node, by rising number."""
    below: list[list[int]] = [[] for _ in parents]
    for node, parent in enumerate(parents.tolist()):
        if parent >= 0:
            below[parent].append(node)
    for node in range(classes, len(parents)):
        if not below[node]:
            raise HyperparameterError(
                f"tree: node {node} has no children; expected some, as nodes from {classes} on, the number "
                "of classes, are inner ones"
            )
    return below


def _deciding(node: int, below: list[list[int]], classes: int) -> int:
    """The first node from this one downwards that has several children or none."""
    while node >= classes and len(below[node]) == 1:
        (node,) = below[node]
    return node


def _check_parents(parents: Any, classes: int) -> None:
    """Raise HyperparameterError unless the numbers are some that parents may have."""
    wanted = (
        f"a vector of integers: first the parent of each of the {classes} classes, then those of the inner "
        f"nodes {classes}, {classes + 1}, …; −1 for the root"
    )
    array = np.asarray(parents)
    if array.ndim != 1 or array.dtype.kind not in "iu" or len(array) <= classes:
        raise HyperparameterError(f"tree is {shown(parents)}; expected {wanted}")
    roots = np.flatnonzero(array == -1)
    if len(roots) != 1 or roots[0] < classes:
        raise HyperparameterError(f"tree has {len(roots)} roots, or a class as root; {wanted}")
    bad = np.flatnonzero((array >= len(array)) | ((array < classes) & (array != -1)))
    if len(bad):
        raise HyperparameterError(
            f"tree[{bad[0]}] is {int(array[bad[0]])}; expected an inner node in "
            f"[{classes}, {len(array) - 1}]"
        )
