"""Matrix products of a compiled graph, for a CPU: each is a call of its own, and what else it does is better fused."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch._inductor.pattern_matcher import CallFunction, KeywordArg, Match, PatternMatcherPass, register_graph_pattern

_aten = torch.ops.aten
_patterns: Any = PatternMatcherPass()


class SimplerProducts(CustomGraphPass):
    """Takes from matrix products what the kernels around them do on their way.

    That is the bias of a layer, which would be copied into every row first, and products with a vector.
    """

    def __call__(self, graph: fx.Graph) -> None:
        """Rewrite `graph` in place."""
        _patterns.apply(graph)

    def uuid(self) -> str:
        """Return the version of the patterns, by which torch keeps compiled graphs apart; to be raised with them."""
        return "slm_lab.SimplerProducts.2"


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return the matrix product of `[..., M, K]` and `[..., K, N]`, without a call where one of the three is 1."""
    if left.shape[-1] == 1:
        return left * right
    return (left.unsqueeze(-1) * right.unsqueeze(-3)).sum(-2) if _with_vector(left, right) else left @ right


def _with_vector(left: Any, right: Any) -> bool:
    return 1 in (*left.shape[-2:], *right.shape[-2:])


def _takes_vector(match: Match) -> bool:
    return _with_vector(match.kwargs["left"].meta["val"], match.kwargs["right"].meta["val"])


def _has_no_factors(match: Match) -> bool:
    return not match.output_node().kwargs  # no layer has them


def _rewrites(operation: Any, *names: str, where: Callable[[Match], bool]) -> Callable[..., Any]:
    """Return the decorator of what is to replace an operation of arguments with these names."""
    pattern = CallFunction(operation, *map(KeywordArg, names))
    return register_graph_pattern(pattern, pass_dict=_patterns, extra_check=where)


@_rewrites(_aten.addmm.default, "bias", "left", "right", where=_has_no_factors)
@_rewrites(_aten.baddbmm.default, "bias", "left", "right", where=_has_no_factors)
def _bias_after_product(match: Match, bias: fx.Node, left: fx.Node, right: fx.Node) -> None:
    match.replace_by_example(lambda b, x, w: product(x, w) + b, [bias, left, right])


@_rewrites(_aten.mm.default, "left", "right", where=_takes_vector)
@_rewrites(_aten.bmm.default, "left", "right", where=_takes_vector)
def _of_a_vector(match: Match, left: fx.Node, right: fx.Node) -> None:
    match.replace_by_example(product, [left, right])
