"""Families: one method for every order, ``DEIS(3)`` with the name ``deis-3`` in the registry."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import partialmethod
from typing import ClassVar

from torch import Tensor

from sdekit.errors import SdekitError
from sdekit.schedules import Schedule
from sdekit.steppers.assembly import NEAR, Multistep, Start
from sdekit.steppers.base import Spec
from sdekit.steppers.plan import Plan, PlannedStepper


class Family(PlannedStepper):
    """A multistep method for every order p in ``orders``.

    Args:
        order: p.
        start: How the first p − 1 steps are taken: ``single-step``, by a single-step method that keeps the order and
            asks the network more often; ``ramp``, at one evaluation a step, with orders 1, 2, … as most codes do it.
        apart: The least distance between the evaluations that are interpolated, in parts of a step; see
            :class:`~sdekit.steppers.assembly.Multistep`.

    Raises:
        SdekitError: an order or a start that there is not, or a distance that is not positive.
    """

    orders: ClassVar[tuple[int, ...]]
    listed: ClassVar[int] = 4
    """The highest order that has a name in the registry."""
    apart: float = NEAR

    def __init__(self, order: int, start: Start = "single-step", apart: float | None = None) -> None:
        if order not in self.orders:
            raise SdekitError(f"{type(self).__name__} has the orders {self.orders}; got {order!r}.")
        if start not in ("single-step", "ramp"):
            raise SdekitError(f"start is 'single-step' or 'ramp'; got {start!r}.")
        if apart is not None and not apart > 0.0:
            raise SdekitError(f"apart is a positive part of a step; got {apart!r}.")
        self.order, self.start = order, start
        self.apart = self.apart if apart is None else apart
        self.spec = self.declared(order)  # type: ignore[misc]

    def __repr__(self) -> str:
        start = "" if self.start == "single-step" else f", start={self.start!r}"
        apart = "" if self.apart == type(self).apart else f", apart={self.apart!r}"
        family = type(self).__name__.removesuffix(str(self.order))  # a member of the registry is one of the family, too
        return f"{family}({self.order}{start}{apart})"

    @classmethod
    @abstractmethod
    def declared(cls, order: int) -> Spec:
        """The facts of the member of this order."""

    @abstractmethod
    def method(self) -> Multistep:
        """The member's recipe."""

    def plan(self, schedule: Schedule, eta: float, times: Tensor) -> Plan:
        return self.method().plan(schedule, eta, times)

    @classmethod
    def members(cls) -> Iterator[type[Family]]:
        """A class for every order, for the registry."""
        for order in cls.orders[: cls.listed]:
            init = partialmethod(cls.__init__, order)
            facts = {"spec": cls.declared(order), "__init__": init, "__doc__": cls.__doc__}
            yield type(f"{cls.__name__}{order}", (cls,), {**facts, "__module__": cls.__module__})
