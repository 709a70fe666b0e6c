"""Build the parts of a run and check them: device, data, network, optimiser, averages and position."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.swa_utils import AveragedModel

from dim.errors import InputError
from dim.network import DIM
from dim_runtime.images.pairs import Pair
from dim_training import run_folder, run_state
from dim_training.config import TrainConfig, changed_settings
from dim_training.data.dataset import build_scenes
from dim_training.data.loader import Batch, build_loader
from dim_training.devices import open_accelerator
from dim_training.ema import averaged_copy
from dim_training.losses import TrainingStep
from dim_training.run_state import Position, RunState
from dim_training.scoring.photographs import readable_entries
from dim_training.stages import build_network, trained_part

START_ONLY = ("vgg", "soften")
"""Settings that count before the first step only."""


@dataclass
class Run:
    """The parts of a run.

    Attributes:
        config: its recipe.
        output: its folder.
        command: the command line, for the provenance of the weights.
        changes: settings that a resumed run changes, one line each.
        accelerator: device, precision and the other processes.
        model: the network that is trained; ``step`` is wrapped for several processes, this is not.
        step: forward pass and losses.
        optimiser: Adam over the parameters that the stage trains.
        averaged: the moving average; None without ``ema``.
        position: the progress, which the loop moves on.
        batches: the batches of this process, from the position on.
        photographs: the validation set of all processes together.
    """

    config: TrainConfig
    output: Path
    command: str
    changes: list[str]
    accelerator: Accelerator
    model: DIM
    step: nn.Module
    optimiser: Optimizer
    averaged: AveragedModel | None
    position: Position
    batches: Iterator[Batch]
    photographs: list[Pair]

    @property
    def shipped(self) -> DIM:
        """The weights that are scored and shipped: the averaged ones, if there are any."""
        if self.averaged is None:
            return self.model
        assert isinstance(self.averaged.module, DIM)
        return self.averaged.module

    @property
    def images_per_step(self) -> int:
        """Samples of all processes in one step."""
        return self.config.batch * int(self.accelerator.num_processes)

    def save_state(self) -> None:
        """Write ``last/``."""
        averaged = self.averaged
        state = RunState(
            position=self.position,
            model=self.model,
            averaged=None if averaged is None else self.shipped,
            averages=0 if averaged is None else int(averaged.n_averaged),
            moments=_moments(self.model, self.optimiser),
            scaler={} if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
        )
        run_state.save_state(self.accelerator, self.output, state)


def build_run(
    config: TrainConfig,
    output: Path,
    *,
    init: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    command: str = "",
) -> Run:
    """Build the parts of a run; the data is checked first, before any weights are downloaded or read.

    Args:
        output: folder of the run; an earlier run in it is an error without ``resume`` or ``overwrite``.
        init: checkpoint to start from.
        resume: go on from ``last/`` of the folder; ``init`` is not read then.
        overwrite: let the run replace an earlier one in the folder.
        device: "auto", "cpu", "cuda" or "cuda:N".
        command: text for the provenance of the weights.

    Raises:
        InputError: data or settings that cannot be used, an earlier run, or nothing to resume.
        DeviceError: no such device.
    """
    if not (resume or overwrite):
        run_folder.require_new(output)
    state = run_state.read_state(output) if resume else None
    changes = [] if state is None else _accepted_changes(config, output, state)
    accelerator = open_accelerator(device, config.precision)
    scenes = build_scenes(config.data, config.seed)
    photographs = _validation_set(config)
    torch.manual_seed(config.seed)
    model = build_network(config, init) if state is None else DIM(config.network)
    model = model.to(memory_format=torch.channels_last)
    optimiser = Adam([p for p in trained_part(model).parameters() if p.requires_grad], config.learning_rate)
    step, optimiser = accelerator.prepare(
        TrainingStep(model, laplacian=config.laplacian, cross_entropy=config.cross_entropy), optimiser
    )
    averaged = None if config.ema is None else averaged_copy(model, config.ema)
    position = Position() if state is None else state.position
    if not _best_stands(output, changes):
        position.best = math.inf
    processes = int(accelerator.num_processes)
    first = position.samples + accelerator.process_index
    end = position.samples + max(0, config.steps - position.step) * config.batch * processes
    pinned = accelerator.device.type == "cuda"
    batches = build_loader(config, scenes, range(first, end, processes), pinned=pinned)
    run = Run(
        config, output, command, changes, accelerator, model, step, optimiser, averaged, position, batches,
        photographs,
    )  # fmt: skip
    if state is not None:
        _restore(run, state)
    return run


def _validation_set(config: TrainConfig) -> list[Pair]:
    settings = config.validation
    return [] if settings.root is None else readable_entries(settings.root, settings.data_root)


def _accepted_changes(config: TrainConfig, output: Path, state: RunState) -> list[str]:
    """Return the settings that differ from the run's; InputError for those that a resumed run cannot take."""
    if state.model.config != config.network:
        lines = _differences(state.model.config.model_dump(), config.network.model_dump())
        raise InputError(
            f"cannot resume {output} with another network",
            got="\n    ".join(lines),
            fix="leave out these overrides, or start another run with --init",
        )
    if (state.averaged is None) != (config.ema is None):
        raise InputError(
            f"cannot resume {output}: averaged weights cannot be switched on or off",
            got=f"ema={config.ema}",
            expected="ema=none" if state.averaged is None else "the ema of the run",
        )
    changes = changed_settings(run_folder.read_config_of(output), config)
    late = [line for line in changes if line.split(":")[0] in START_ONLY]
    if late:
        raise InputError(
            f"cannot resume {output} with settings that count before the first step only",
            got="\n    ".join(late),
            fix="leave out these overrides, or start another run with --init",
        )
    return changes if state.moments is not None else [*changes, "Adam's moments: packed without them → zero"]


def _best_stands(output: Path, changes: list[str]) -> bool:
    """Return whether the lowest score so far has its weights, and is one of the same photographs."""
    other = any(line.startswith(("validation.root:", "validation.data_root:")) for line in changes)
    return (output / "best.safetensors").is_file() and not other


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [f"network.{key}: {before[key]} → {after[key]}" for key in before if before[key] != after[key]]


def _restore(run: Run, state: RunState) -> None:
    run.model.load_state_dict(state.model.state_dict())
    if run.averaged is not None:
        assert state.averaged is not None
        run.averaged.module.load_state_dict(state.averaged.state_dict())
        run.averaged.n_averaged.fill_(state.averages)
    if state.moments is not None:
        _restore_moments(run, state.moments)
    if run.accelerator.scaler is not None and state.scaler:
        _restore_scaler(run, state.scaler)
    run_state.restore_generators(run_state.read_generators(run.output, run.accelerator.process_index))


def _restore_scaler(run: Run, numbers: dict[str, float]) -> None:
    missing = run.accelerator.scaler.state_dict().keys() - numbers.keys()
    if missing:
        raise run_state.damaged(run.output, f"the scaler lacks {', '.join(sorted(missing))}")
    run.accelerator.scaler.load_state_dict(numbers)


def _trained_parameters(model: DIM) -> list[tuple[str, nn.Parameter]]:
    """Return names and parameters in the optimiser's order."""
    trained = {id(p) for p in trained_part(model).parameters()}
    return [(name, p) for name, p in model.named_parameters() if id(p) in trained and p.requires_grad]


def _moments(model: DIM, optimiser: Optimizer) -> dict[str, Tensor]:
    states = optimiser.state_dict()["state"]
    return {
        f"{name}.{key}": value
        for number, (name, _) in enumerate(_trained_parameters(model))
        for key, value in states.get(number, {}).items()
    }


def _restore_moments(run: Run, moments: dict[str, Tensor]) -> None:
    parameters = _trained_parameters(run.model)
    states: dict[int, dict[str, Tensor]] = {}
    for number, (name, parameter) in enumerate(parameters):
        found = {key: moments.get(f"{name}.{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
        tensors = {key: value for key, value in found.items() if value is not None}
        if len(tensors) < len(found) or not all(_fits(key, tensors[key], parameter) for key in tensors):
            raise run_state.damaged(
                run.output, f"optimizer.safetensors: no finite floating-point moments of {name} in its shape"
            )
        # The moments lie in memory as their parameter does: Adam then runs through the same code.
        states[number] = {
            key: value if key == "step" else torch.empty_like(parameter).copy_(value)
            for key, value in tensors.items()
        }
    # The settings are the recipe's; only the moments come from the state.
    groups = run.optimiser.state_dict()["param_groups"]
    run.optimiser.load_state_dict({"state": states, "param_groups": groups})


def _fits(key: str, moment: Tensor, parameter: Tensor) -> bool:
    """Return whether a tensor can be a moment of a parameter, or its number of steps."""
    shape = torch.Size() if key == "step" else parameter.shape
    is_finite = moment.is_floating_point() and bool(torch.isfinite(moment).all())
    return is_finite and moment.shape == shape and (key == "exp_avg" or bool((moment >= 0).all()))
