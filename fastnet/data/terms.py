"""Terms: what the users of a model call its inputs and classes, and what its outputs stand for."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from fastnet.data import labels
from fastnet.data.frames import names_of
from fastnet.data.labels import listed
from fastnet.errors import DataError, shown
from fastnet.op import Array
from fastnet.plain import plain


@plain(eq=True, frozen=True)
class Terms:
    """What the first fit has told a model.

    columns: the names of the inputs, if they came in a frame with names, else (); None: no fit yet.
    classes: the labels of the classes, sorted, if the targets were labels. link: how outputs become
    probabilities, see fastnet.losses.links; None: they do not.
    """

    columns: tuple[str, ...] | None = None
    classes: labels.Classes | None = None
    link: str | None = None

    @cached_property
    def renames(self) -> bool:
        """Whether labels differ from the numbers of their classes."""
        return self.classes is not None and not labels.are_numbers(self.classes)

    def check_columns(self, name: str, value: Any) -> None:
        """Raise DataError where a frame has other columns, or another order of them."""
        found = names_of(value) if self.columns else None
        if not self.columns or found is None or found == self.columns:
            return
        missing = [column for column in self.columns if column not in found]
        extra = [column for column in found if column not in self.columns]
        if missing or extra:
            parts = [f"lacks {listed(missing)}"] * bool(missing)
            parts += [f"has {listed(extra)} besides"] * bool(extra)
            raise DataError(
                f"the columns of {name} are not those of the fit: it {' and '.join(parts)}; expected "
                f"{listed(self.columns)}"
            )
        at = next(
            i for i, pair in enumerate(zip(found, self.columns, strict=False)) if len({*pair}) > 1
        )
        raise DataError(
            f"the columns of {name} are in another order than in the fit: column {at} is "
            f"{shown(found[at])}, expected {shown(self.columns[at])}; select them by name, in the order of "
            "model.feature_names_in_"
        )

    def of_fit(
        self,
        X: Any,
        name: str,
        y: Any,
        *,
        count: int,
        column: bool,
        ignored: int | None,
        link: str | None,
        learn: bool = True,
    ) -> tuple[Terms, Any]:
        """These with what a fit on X and y adds, and y with the numbers of classes.

        count: how many classes the outputs tell apart; 0: targets are no labels. column: whether a row of
        targets is one number, so that labels may be (n, 1). ignored: the label of rows that do not count.
        learn: False, if y adds no classes.
        """
        columns, classes = self.columns, self.classes
        if columns is None:
            columns = names_of(X) or ()
        if count:
            y = labels.read(name, y)
            if classes is None and labels.are_labels(y, column=column):
                classes = labels.classes_in(name, y, count, ignored, learn=learn)
        changed = (columns, classes, link) != (self.columns, self.classes, self.link)
        terms = Terms(columns, classes, link) if changed else self
        return terms, terms._numbered(name, y, column, ignored) if count else y

    def _numbered(self, name: str, y: Array, column: bool, ignored: int | None) -> Array:
        classes = self.classes
        if classes is None or not labels.are_labels(y, column=column):
            return y
        if not self.renames and y.dtype.kind != "O":
            return y
        return labels.numbers_of(name, y, classes, ignored)

    def linked(self, link: str | None) -> Terms:
        """These with another link."""
        return self if link == self.link else Terms(self.columns, self.classes, link)


UNKNOWN = Terms()
