"""The plain true folders by name; the odd and the broken ones start from these."""

from __future__ import annotations

from collections.abc import Callable

from .april import april, caseops, phased, reevaluated
from .folders import Folder
from .march import byte, legal, long, plain, staged, ternary, triple

PLAIN: dict[str, Callable[[], Folder]] = {
    "plain": plain,
    "staged": staged,
    "triple": triple,
    "ternary": ternary,
    "april": april,
    "phased": phased,
    "caseops": caseops,
    "legal": legal,
    "long": long,
    "byte": byte,
    "reevaluated": reevaluated,
}
