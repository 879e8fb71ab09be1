"""A decoded network as a model of lm-evaluation-harness, run as it is stored: structured, quantised, from the file.

Shape letters: B rows of a batch, T tokens, V token ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from harness.errors import UsageError
from harness.evaluate import BATCH_TOKENS
from harness.loading import LoadedArtifact

DEFAULT_NEW_TOKENS = 256


class _Row(NamedTuple):
    """Tokens to score: the last `num_scored` of them, each given those before it."""

    place: int
    tokens: list[int]
    num_scored: int


class RecordModel(TemplateLM):  # type: ignore[misc]  # lm_eval has no types
    """What lm-evaluation-harness asks of a model, answered by a decoded network and its own tokenizer.

    As its own models do, a text starts after the start token where the tokenizer puts it there, texts that are too long
    lose their beginning, and long documents are scored in windows that share one token.

    Args:
        loaded: the artifact.
    """

    def __init__(self, loaded: LoadedArtifact) -> None:
        super().__init__()
        self._network, self._tokenizer = loaded.network, loaded.tokenizer
        self._context = loaded.method.task.context
        self._device = next(loaded.network.parameters()).device
        self._batch_tokens = BATCH_TOKENS.get(self._device.type, BATCH_TOKENS["cpu"])

    @property
    def eot_token_id(self) -> int:
        """The token that texts start after, which stands for an empty context, too."""
        return self._tokenizer.start_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Return the ids of a text, after the start token where the tokenizer puts it there."""
        ids: list[int] = self._tokenizer.encode(string.encode()).tolist()
        is_begun = self._tokenizer.begins_texts if add_special_tokens is None else add_special_tokens
        return [self._tokenizer.start_id, *ids] if is_begun else ids

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Return log-probability and greediness of continuations (third) given contexts (second)."""
        rows = []
        for index, (_, context, continuation) in enumerate(requests):
            tokens = [*context, *continuation][-(self._context + 1) :]
            rows.append(_Row(index, tokens, min(len(continuation), len(tokens) - 1)))
        answers = [(0.0, True)] * len(rows)
        for batch in self._batches(rows):
            for row, answer in zip(batch, self._score(batch), strict=True):
                answers[row.place] = answer
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of whole documents, every token of which is scored once."""
        windows: list[tuple[None, list[int], list[int]]] = []
        counts = []
        for request in requests:
            found = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._context,
                context_len=1,
            )
            pairs = [make_disjoint_window(each) for each in found]
            counts.append(len(pairs))
            windows += [(None, list(context), list(continuation)) for context, continuation in pairs]
        scores = iter(self._loglikelihood_tokens(windows))
        return [sum(next(scores)[0] for _ in range(count)) for count in counts]

    @torch.no_grad()
    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return greedy continuations up to one of the texts that end them; each token runs the whole window again.

        Raises:
            UsageError: the task asks for samples.
        """
        answers = []
        for request in requests:
            context, options = request.args
            if options.get("do_sample") or options.get("temperature", 0) or options.get("num_beams", 1) != 1:
                raise UsageError("--tasks: a task asks for samples or beams; a record generates greedily only")
            until = options.get("until") or []
            ends = [until] if isinstance(until, str) else list(until)
            answers.append(self._generate(context, ends, int(options.get("max_gen_toks", DEFAULT_NEW_TOKENS))))
        return answers

    def _generate(self, context: str, ends: list[str], max_new_tokens: int) -> str:
        tokens = self.tok_encode(context) or [self.prefix_token_id]
        made: list[int] = []
        text = ""
        for _ in range(max_new_tokens):
            window = [*tokens, *made][-self._context :]
            logits_V = self._network(torch.tensor([window], device=self._device), last=1)[0, -1]
            made.append(int(logits_V[: self._tokenizer.vocab_size].argmax()))
            text = self._tokenizer.decode(made).decode(errors="replace")
            if made[-1] == self._tokenizer.start_id or any(end in text for end in ends):
                break
        return text[: min((text.find(end) for end in ends if end in text), default=len(text))]

    def _batches(self, rows: Sequence[_Row]) -> Iterator[list[_Row]]:
        """Group rows of like length, the longest first, into batches of a bounded number of tokens."""
        batch: list[_Row] = []
        for row in sorted(rows, key=lambda row: -len(row.tokens)):
            if batch and (len(batch) + 1) * len(batch[0].tokens) > self._batch_tokens:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    @torch.no_grad()
    def _score(self, batch: list[_Row]) -> list[tuple[float, bool]]:
        """Score rows padded at their end, which causal networks do not see."""
        length = len(batch[0].tokens)
        padded = [row.tokens + [0] * (length - len(row.tokens)) for row in batch]
        tokens_BT = torch.tensor(padded, device=self._device)
        logits_BTV = self._network(tokens_BT[:, :-1])
        answers = []
        for row, logits_TV, tokens_T in zip(batch, logits_BTV, tokens_BT, strict=True):
            stop = len(row.tokens)
            targets, scored = tokens_T[stop - row.num_scored : stop], logits_TV[stop - row.num_scored - 1 : stop - 1]
            nats = F.cross_entropy(scored.double(), targets, reduction="sum")
            answers.append((-float(nats), bool((scored.argmax(-1) == targets).all())))
        return answers
