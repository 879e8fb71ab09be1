"""What a 17.6B network costs on a laptop, by hand, and the tables that the README shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.registry import find_method
from methods.generator_search import laptop
from methods.generator_search.laptop import Laptop, Way
from methods.generator_search.measures import Configuration, matching, tokens_a_second


def test_parameters_by_hand() -> None:
    # 64 (2 * 4096^2 + 2 * 4096 * 4096 + 3 * 4096 * 16384) = 17,179,869,184, and 2 * 50,257 * 4096 = 411,705,344
    found = Configuration(mlp_width=16_384, kv_width=4096, vocabulary=50_257, is_tied=False)
    assert found.block_params == 17_179_869_184
    assert found.table_params == 411_705_344
    assert found in matching(17.55e9, 17.65e9)


def test_speeds_by_hand() -> None:
    machine = Laptop(memory_bytes=16e9, flops=1e12, bandwidth=1e11)
    # 35.2 GB at 100 GB/s, against 35.2 GFLOPs at 1e12 operations a second
    stored = Way(name="", held_bytes=35.2e9, moved_bytes=35.2e9, flops_a_weight=0)
    assert stored.tokens_a_second(machine) == pytest.approx(1 / 0.352)
    # with 256 tokens together arithmetic is slower: 256 * 35.2e9 operations
    assert stored.tokens_a_second(machine, 256) == pytest.approx(1 / 0.0352)
    # 8 operations generate a weight: 17.6e9 * (2 + 8) = 176e9
    generated = Way(name="", held_bytes=0, moved_bytes=0, flops_a_weight=8)
    assert generated.tokens_a_second(machine) == pytest.approx(1 / 0.176)
    assert tokens_a_second(17.6e9, 8, 1e12) == pytest.approx(generated.tokens_a_second(machine))


def test_the_readme_has_the_tables_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert laptop.main() == 0
    readme = (Path(find_method("generator_search").folder) / "README.md").read_text(encoding="utf-8")
    for line in filter(None, capsys.readouterr().out.splitlines()):
        assert line in readme, line
