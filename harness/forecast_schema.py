"""What a forecast says, field by field; the JSON document of `harness plan` is `dataclasses.asdict` of a `Forecast`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceForecast:
    """Where the run is planned for.

    Attributes:
        name: "here", or a name of `devices.toml`.
        title: what that is.
        precision: number format of matrix products on it, "float32" or "bfloat16".
        memory_bytes: its whole memory.
        is_timed: whether seconds come from steps timed on it, and not from an assumption.
        peak_flops: operations a second by the data sheet; None where steps are timed.
        mfu: assumed part of that; None where steps are timed.
    """

    name: str
    title: str
    precision: str
    memory_bytes: int
    is_timed: bool
    peak_flops: float | None
    mfu: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeForecast:
    """Parameters and bytes.

    Attributes:
        trained: parameters with a gradient.
        stored: numbers in the file, scales included.
        effective: dense-equivalent parameters of what runs.
        active: parameters multiplied for each token.
        bytes_before_coding: trained parameters at the width of their scheme.
        bytes_after_coding: tensors at the bits of Gaussian noise through quantiser and coder.
    """

    trained: int
    stored: int
    effective: int
    active: int
    bytes_before_coding: int
    bytes_after_coding: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FlopsForecast:
    """Floating-point operations, a multiply-add counted as two.

    Attributes:
        token: of a step, divided by its tokens.
        forward: forward passes of a step.
        backward: backward passes of a step.
        generation: making weights and taking gradients back to what they are made from, once a step.
        optimiser: of a step.
        step: sum of these four.
        teacher: forward pass of the teacher, in each step of a distillation; 0 without one.
        run: of all steps; None where their number is unknown.
    """

    token: float
    forward: float
    backward: float
    generation: float
    optimiser: float
    step: float
    teacher: float
    run: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetForecast:
    """What the budget holds; None where that is unknown.

    Attributes:
        text: the budget as given.
        steps: optimiser steps.
        tokens: training tokens.
        tokens_per_step: training tokens of one step.
        epochs: passes over the training split.
    """

    text: str
    steps: int | None
    tokens: int | None
    tokens_per_step: int
    epochs: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryForecast:
    """Bytes that training holds at its height, by use, as `harness.training.footprint.Footprint` counts them.

    Attributes:
        weights: parameters and buffers.
        generated_weights: weights that are generated from parameters once a step.
        gradients: of the micro-batch at hand, and partial sums of earlier ones.
        optimiser_state: momenta and second moments.
        averages: the average of the weights that is exported, where one is taken.
        teacher: frozen weights of self-distillation.
        activations: what autograd keeps of one micro-batch; None where the network cannot run without data.
        temporaries: what operations of forward and backward hold beyond that at their height.
        warm_up_copy: weights as they were, kept during the warm-up to undo it.
        peak: sum of all.
        fits: whether that is at most the memory of the device.
    """

    weights: int
    generated_weights: int
    gradients: int
    optimiser_state: int
    averages: int
    teacher: int
    activations: int | None
    temporaries: int
    warm_up_copy: int
    peak: int
    fits: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeForecast:
    """Seconds and money; None where no step was timed or no price was given.

    Attributes:
        step_seconds: of one optimiser step.
        train_seconds: of all steps.
        export_seconds: quantising and coding, as fast as this machine does it.
        run_seconds: of training and export; validation and scoring come on top.
        device_hours: the same on one device.
        price: device hours times the price of one.
    """

    step_seconds: float | None
    train_seconds: float | None
    export_seconds: float
    run_seconds: float | None
    device_hours: float | None
    price: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """Everything that `harness plan` says.

    Attributes:
        method: name of the method.
        preset: of the method.
        data: the --data value.
        vocab_size: number of token ids.
        device: where it is to run.
        params: numbers and bytes.
        flops: operations.
        budget: steps, tokens, epochs.
        memory: bytes while training.
        time: seconds, hours, price.
        warnings: what the user should change or know before the run.
        notes: what the figures rest on.
    """

    method: str
    preset: str
    data: str
    vocab_size: int
    device: DeviceForecast
    params: SizeForecast
    flops: FlopsForecast
    budget: BudgetForecast
    memory: MemoryForecast
    time: TimeForecast
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
