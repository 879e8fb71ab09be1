"""Record folders as values: files in memory that can be edited in one place and written to disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .model import Run, avg, sd, spread

TRACK = "track_10min_16mb"
NON_RECORD = "track_non_record_16mb"
Summary = Callable[[Sequence[Run]], Mapping[str, Any]]
Readme = Callable[[Sequence[Run]], str]


@dataclass
class Folder:
    """The files of one record, the runs they were written from, and the track they were filed under."""

    files: dict[str, bytes]
    runs: list[Run] = field(default_factory=list)
    track: str = TRACK

    def text(self, name: str) -> str:
        return self.files[name].decode("utf-8")

    def summary(self) -> dict[str, Any]:
        name = next(n for n in self.files if n.startswith("submission") and n.endswith(".json"))
        return dict(json.loads(self.text(name)))

    def put(self, name: str, content: str | bytes) -> Folder:
        data = content if isinstance(content, bytes) else content.encode("utf-8")
        return Folder({**self.files, name: data}, self.runs, self.track)

    def drop(self, *names: str) -> Folder:
        missing = [name for name in names if name not in self.files]
        if missing:
            raise KeyError(missing)
        return Folder({n: d for n, d in self.files.items() if n not in names}, self.runs, self.track)

    def rename(self, old: str, new: str) -> Folder:
        return self.put(new, self.files[old]).drop(old)

    def sub(self, name: str, old: str, new: str, times: int = 1) -> Folder:
        """Replace `old`, which must occur exactly `times` times in that file."""
        text = self.text(name)
        if text.count(old) != times:
            raise ValueError(f"{old!r} occurs {text.count(old)} times in {name}, not {times}")
        return self.put(name, text.replace(old, new))

    def add(self, name: str, more: str) -> Folder:
        return self.put(name, self.text(name) + more)

    def json(self, changes: Mapping[str, Any] | None = None, drop: Iterable[str] = (), **more: Any) -> Folder:
        """Set or drop keys of the summary; a dotted key goes into nested objects."""
        name = next(n for n in self.files if n.startswith("submission") and n.endswith(".json"))
        data = json.loads(self.text(name))
        for key, value in {**(changes or {}), **more}.items():
            *path, last = key.split(".")
            inner = data
            for part in path:
                inner = inner[part]
            inner[last] = value
        for key in drop:
            del data[key]
        return self.put(name, dump(data))

    def swap_files(self, one: str, other: str) -> Folder:
        return self.put(one, self.files[other]).put(other, self.files[one])

    def every(self, change: Callable[[bytes], bytes]) -> Folder:
        """Change every text file (not the stand-ins for code)."""
        kept = {n: d if n.endswith((".py", ".model")) else change(d) for n, d in self.files.items()}
        return Folder(kept, self.runs, self.track)

    def filed(self, track: str) -> Folder:
        return Folder(self.files, self.runs, track)

    def write(self, path: Path) -> Path:
        for name, data in self.files.items():
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return path


def write_all(builders: Mapping[str, Callable[[], Folder]], root: Path) -> dict[str, Path]:
    """Write every folder as `root/<track>/<name>`; gives name -> path."""
    made = {}
    for name, build in builders.items():
        folder = build()
        made[name] = folder.write(root / folder.track / f"2026-04-01_{name}")
    return made


def dump(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2) + "\n"


def folder(
    runs: Sequence[Run],
    log: Callable[[Run], str],
    summary: Summary | None,
    readme: Readme,
    *,
    name: str = "train_seed{seed}.log",
    code: str = "train_gpt.py",
    json_name: str = "submission.json",
    track: str = TRACK,
) -> Folder:
    """Write one record: a log per run, a summary, a README and a stand-in for the code."""
    files = {"README.md": readme(runs).encode()}
    if summary is not None:
        files[json_name] = dump(summary(runs)).encode()
    for index, run in enumerate(runs):
        files[name.format(seed=run.seed, index=index)] = log(run).encode()
    if code:
        files[code] = b"#" * runs[0].code
    return Folder(files, list(runs), track)


@dataclass(frozen=True)
class Column:
    """A column of a per-seed table: title, value of a run, how it is printed."""

    title: str
    value: Callable[[Run], float]
    show: str = "{:.4f}"

    def cell(self, value: float) -> str:
        return self.show.format(round(value) if ",}" in self.show or ":d}" in self.show else value)


def score(title: str, stage: str = "", digits: int = 4, what: str = "bpb") -> Column:
    return Column(title, lambda run: getattr(run, what)(stage), f"{{:.{digits}f}}")


STEPS = Column("Steps", lambda run: run.steps, "{:,}")
SIZE = Column("Artifact", lambda run: run.total, "{:,}")
STEP_MS = Column("ms/step", lambda run: run.step_ms, "{:.1f}")
TRAIN_S = Column("Train time", lambda run: run.train_ms / 1000, "{:.2f}s")
EVAL_S = Column("Eval time", lambda run: run.eval_ms[run.final] / 1000, "{:.1f}s")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join("---" for _ in header) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def seed_table(
    runs: Sequence[Run], columns: Sequence[Column], *, mean: str = "**Mean**", std: str = "", kind: str = "sample"
) -> str:
    """One row a seed, then a mean row and, if named, a deviation row."""
    rows: list[list[str]] = [[str(run.seed), *(c.cell(c.value(run)) for c in columns)] for run in runs]
    values = [[c.value(run) for run in runs] for c in columns]
    if mean:
        rows.append([mean, *(f"**{c.cell(sum(v) / len(v))}**" for c, v in zip(columns, values, strict=True))])
    if std:
        rows.append([std, *(c.cell(spread(v, kind)) for c, v in zip(columns, values, strict=True))])
    return table(["Seed", *(c.title for c in columns)], rows)


def headline(runs: Sequence[Run], digits: int = 4) -> str:
    if len(runs) == 1:
        return f"**val_bpb: {runs[0].bpb():.{digits}f}** | {runs[0].total / 1e6:.2f} MB | 8xH100 SXM\n"
    size = max(run.total for run in runs) / 1e6
    return (
        f"**val_bpb: {avg(runs):.{digits}f}** ({len(runs)}-seed mean, std {sd(runs):.4f}) | **{size:.2f} MB** max | "
        "8xH100 SXM\n"
    )
