"""How much of what its peers take the generated handler may take, and whether it keeps to that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.contenders import BARE_ONNX, EMPTY, GENERATED, USUAL_WAY
from benchmarks.rounds import Figure, Figures


@dataclass(frozen=True)
class Limit:
    """The generated handler's figure may be `at_most` times that of `peer`."""

    figure: Figure
    peer: str
    at_most: float


@dataclass(frozen=True)
class Verdict:
    """A limit and the ratio that was measured."""

    limit: Limit
    ratio: float

    @property
    def passed(self) -> bool:
        """Whether the ratio is within the limit."""
        return self.ratio <= self.limit.at_most


LIMITS = (
    Limit("cold_start", BARE_ONNX, 1.3),
    Limit("cold_start", USUAL_WAY, 0.17),
    Limit("warm_call", EMPTY, 1.2),
    Limit("large_alone", BARE_ONNX, 0.6),
    Limit("memory", USUAL_WAY, 0.5),
)


def judge(figures: Mapping[str, Figures]) -> list[Verdict]:
    """Return a verdict on each of LIMITS."""
    return [Verdict(limit, ratio(figures, limit.figure, limit.peer)) for limit in LIMITS]


def ratio(figures: Mapping[str, Figures], figure: Figure, peer: str) -> float:
    """Return the generated handler's typical figure divided by the peer's."""
    return figures[GENERATED].typical(figure) / figures[peer].typical(figure)
