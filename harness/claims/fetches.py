"""The functions of the language that fetch evidence: their names, what kind of evidence, how they are called."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["construction", "record", "reproduction"]


class FetchInfo(NamedTuple):
    """A fetch, for the documentation and for checks before any evidence is looked for."""

    kind: Kind
    call: str
    summary: str


FETCHES = {
    "count": FetchInfo(
        "construction",
        'count("mpo/picogpt-chi16", "stored", vocab=65, settings="chi=8; faithful=false")',
        "numbers of a model, counted without allocating it: trained, stored, effective, active, or a part by its name",
    ),
    "flops": FetchInfo(
        "construction",
        'flops("recursive/published", vocab=1024)',
        "floating-point operations of a training step for each of its tokens, by the method's formula",
    ),
    "measure": FetchInfo(
        "construction",
        'measure("legendre.legendre_condition", degree=5, layers=11)',
        "a number that a method measures of its own mathematics: a condition number, the error of an identity",
    ),
    "field": FetchInfo(
        "record",
        'field("their-run", "submission.json", "val_bpb")',
        "a number in a JSON file of a record folder under --evidence, by its keys joined with dots",
    ),
    "stated": FetchInfo(
        "record",
        'stated("their-run", "bpb", "log", stage="sliding")',
        "what a record folder under --evidence states, read as by `harness verify`: quantity, source, stage",
    ),
    "missing": FetchInfo(
        "record",
        'missing("the configuration that the authors ran") == 1',
        "evidence that would decide and that nobody has: the predicate stays undecided and says so",
    ),
    "runs": FetchInfo(
        "reproduction",
        'runs("mpo/picogpt-chi16, budget=2000steps")',
        "how many complete runs of ours match",
    ),
    "mean": FetchInfo(
        "reproduction",
        'mean("mpo/picogpt-chi16, budget=2000steps", "loss_nats")',
        "mean of a figure over seeds, within its confidence interval; beside.WAY.FIGURE is of a way beside the record",
    ),
    "one_run": FetchInfo(
        "reproduction",
        'one_run("dense/picogpt, budget=2000steps", "loss_nats", tokens=40960)',
        "where one more run would lie (prediction interval), with the sampling error of a metric over so many tokens",
    ),
    "difference": FetchInfo(
        "reproduction",
        'difference("mpo/picogpt-chi16, budget=2000steps", "dense/picogpt, budget=2000steps", "val_bpb")',
        "mean difference A - B over the seeds that both have, by the errors of seeds and of text",
    ),
    "ratio": FetchInfo(
        "reproduction",
        'ratio("mpo/picogpt-chi16, budget=2000steps", "dense/picogpt, budget=2000steps", "token_accuracy")',
        "A over B, geometric mean over the seeds that both have, by the errors of seeds and of text",
    ),
}
FETCH_KINDS = {name: info.kind for name, info in FETCHES.items()}
