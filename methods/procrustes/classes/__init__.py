"""Structured classes of matrices; a new one is one file beside these."""

from methods.procrustes.classes.base import Factors, StructuredClass
from methods.procrustes.classes.block_low_rank import BlockLowRank
from methods.procrustes.classes.exact import Exact
from methods.procrustes.classes.kronecker import Kronecker
from methods.procrustes.classes.low_rank import LowRank
from methods.procrustes.classes.monarch import Monarch

__all__ = ["BlockLowRank", "Exact", "Factors", "Kronecker", "LowRank", "Monarch", "StructuredClass"]
