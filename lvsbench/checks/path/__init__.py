"""How far do requests come? Each failed one is placed between the last node that saw it and the first that did not."""

from lvsbench.checks.path.check import CHECK, where

__all__ = ["CHECK", "where"]
