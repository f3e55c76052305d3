"""`Prediction`: a chain and what theory says about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradsim.chain import Chain
from gradsim.documents import json_ready
from gradsim.theory.beside import beside
from gradsim.theory.law import Law
from gradsim.theory.special import FloatArray


@dataclass(frozen=True, repr=False)
class Prediction:
    """What theory says about ln||g_l||, l = 0..L, of a chain; NaN and None where no law is known.

    Attributes
    ----------
    chain : Chain
    law : Law or None
        The law the prediction comes from.
    """

    chain: Chain
    law: Law | None

    @property
    def mean(self) -> FloatArray:
        """Mean of ln||g_l|| given survival, shape (L+1,); NaN where unknown."""
        return np.full(self.chain.depth + 1, math.nan) if self.law is None else self.law.mean

    @property
    def var(self) -> FloatArray | None:
        """Variance of ln||g_l|| given survival, shape (L+1,), or None."""
        return None if self.law is None else self.law.var

    @property
    def log_second_moment(self) -> FloatArray | None:
        """ln E||g_l||^2, dead chains counting as 0, shape (L+1,), or None."""
        return None if self.law is None else self.law.log_second_moment

    @property
    def p_dead(self) -> FloatArray | None:
        """Probability that g_l is exactly zero, shape (L+1,), NaN where unknown; or None."""
        return None if self.law is None else self.law.p_dead

    @property
    def rate(self) -> float:
        """Asymptotic growth of ln||g|| per layer going backward; NaN where unknown or not defined."""
        return math.nan if self.law is None else self.law.rate

    @property
    def validity(self) -> str | None:
        """ "exact", "leading order" (in 1/width), "mean field" (width to infinity), or None without a law."""
        return None if self.law is None else self.law.validity

    @property
    def source(self) -> str | None:
        """Where the law comes from, and for an approximation the order of its error."""
        return None if self.law is None else self.law.source

    def cdf(self, x: npt.ArrayLike, layer: int = 0) -> FloatArray | None:
        """P(ln||g_layer|| <= x) given survival, shape of `x`; None where the law does not give it.

        0 at -inf, since a dead chain's -inf is not among the survivors; 1 at +inf; NaN at NaN.

        Raises
        ------
        IndexError
            If there is no such layer.
        """
        if not 0 <= layer <= self.chain.depth:
            raise IndexError(f"layer {layer} is outside 0..{self.chain.depth}")
        return None if self.law is None else self.law.cdf(x, layer)

    def __repr__(self) -> str:
        if self.law is None:
            return f"Prediction({self.chain!r}: no law known)"
        second = self.law.log_second_moment
        numbers = {
            "mean of ln||g_0||": self.law.mean[0],
            "sd": math.nan if self.law.var is None else math.sqrt(self.law.var[0]),
            "ln E||g_0||^2": math.nan if second is None else second[0],
            "p_dead": self.law.p_dead[0],
            "rate": self.law.rate,
        }
        known = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items() if not math.isnan(value))
        return f"Prediction({self.chain!r}: {self.law.validity}, {known})"

    def to_dict(self) -> dict[str, Any]:
        """One cell of the document that ``gradsim theory --json`` prints; p_dead is that of layer 0.

        Other quantities of the chain follow ln||g||, as far as there are laws: see `gradsim.theory.beside`.
        """
        predictions = [] if self.law is None else [self._row(self.law)]
        predictions += [vars(row) for row in beside(self.chain, self.law)]
        document = {"chain": self.chain.fields(), "predictions": predictions}
        ready: dict[str, Any] = json_ready(document)
        return ready

    def _row(self, law: Law) -> dict[str, Any]:
        return {
            "quantity": "log_grad_norm",
            "layer": list(range(self.chain.depth + 1)),
            "mean": law.mean,
            "var": law.var,
            "log_second_moment": law.log_second_moment,
            "p_dead": float(law.p_dead[0]),
            "rate": law.rate,
            "validity": law.validity,
            "source": law.source,
        }
