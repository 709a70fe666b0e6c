"""The training loop: accelerate for device, precision and processes; exact sample positions."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from dim import checkpoint
from dim.errors import DimError
from dim.network import DIM
from dim_runtime.images.pairs import Pair, read_sample
from dim_training.config import TrainConfig
from dim_training.data.dataset import GlobalOrder, Sample, build_dataset, quiet_worker
from dim_training.data.on_device import PackedParts, build_parts, compose
from dim_training.ema import averaged_copy
from dim_training.losses import Truth, stage_losses
from dim_training.run_log import Journal, Panel
from dim_training.run_state import Position, load_state, save_state
from dim_training.scoring.evaluate import Region, mean_scores, predict, score_network
from dim_training.scoring.photographs import prefetched, readable_entries
from dim_training.stages import build_network, trained_part, training_mode

PANELS = 4
"""Photographs shown in TensorBoard at each validation."""


Batch = tuple[Sample, ...] | tuple[PackedParts, ...]
"""One step's samples in ``accumulate`` parts, as a loader makes them."""


class DivergenceError(DimError):
    """The loss is no longer a number."""

    exit_code = 1


class Waited:
    """An iterator that measures how long its consumer waited for it.

    Attributes:
        seconds: in all, so far.
    """

    def __init__(self, source: Iterator[Batch]) -> None:
        self.source, self.seconds = source, 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        started = time.monotonic()
        try:
            return next(self.source)
        finally:
            self.seconds += time.monotonic() - started


class TrainingStep(nn.Module):
    """Forward pass and losses as one module: what accelerate wraps."""

    def __init__(self, model: DIM, *, laplacian: float = 0.0, cross_entropy: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.laplacian, self.cross_entropy = laplacian, cross_entropy

    def forward(self, batch: Sample, total: Tensor | None = None) -> dict[str, Tensor]:
        """Loss terms of a batch, or of its part of a batch with ``total`` unknown pixels."""
        matte = self.model.matte(batch.network_input)
        # The losses of a bfloat16 forward are summed over many thousand pixels: in float32.
        matte = matte._replace(
            logits=matte.logits.float(),
            alpha=torch.sigmoid(matte.logits.float()),
            refined=None if matte.refined is None else matte.refined.float(),
        )
        truth = Truth(batch.alpha, batch.foreground, batch.background, batch.image, batch.unknown)
        return stage_losses(
            self.model.config.stage,
            matte,
            truth,
            total,
            laplacian=self.laplacian,
            cross_entropy=self.cross_entropy,
        )


class Trainer:
    """One run of a recipe into a folder, in one process or several.

    Writes ``last/`` (everything that resuming needs), ``best.safetensors`` (lowest mean SAD on the
    validation photographs; the final weights where there are none), ``final.safetensors``,
    ``step-N.safetensors`` where the recipe keeps some, and ``metrics.csv``.

    Args:
        output: the folder.
        init: checkpoint to start from.
        resume: go on from ``last/`` of the folder; ``init`` is not needed then.
        device: "cpu" or "cuda".
        command: what is written into the weights' provenance.
    """

    def __init__(
        self,
        config: TrainConfig,
        output: Path,
        *,
        init: Path | None = None,
        resume: bool = False,
        device: str = "cpu",
        command: str = "",
    ) -> None:
        self.config, self.output, self.command = config, output, command
        self.accelerator = Accelerator(
            mixed_precision={"fp32": "no"}.get(config.precision, config.precision), cpu=device == "cpu"
        )
        torch.manual_seed(config.seed)
        model = DIM(config.network) if resume else build_network(config, init)
        self.model = model.to(memory_format=torch.channels_last)
        parameters = [p for p in trained_part(self.model).parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(parameters, lr=config.learning_rate)
        self.schedule = LambdaLR(optimiser, lambda step: learning_rate_factor(config, step))
        self.step_module, self.optimiser = self.accelerator.prepare(
            TrainingStep(self.model, laplacian=config.laplacian, cross_entropy=config.cross_entropy),
            optimiser,
        )
        self.averaged = None if config.ema is None else averaged_copy(self.model, config.ema)
        self.accelerator.register_for_checkpointing(self.schedule)
        if self.averaged is not None:
            self.accelerator.register_for_checkpointing(self.averaged)
        self.position = load_state(self.accelerator, output) if resume else Position()
        self.photographs = _validation_set(config) if self.accelerator.is_main_process else []

    @property
    def shipped(self) -> DIM:
        """The weights that are scored and shipped: the averaged ones where there are any."""
        if self.averaged is None:
            return self.model
        assert isinstance(self.averaged.module, DIM)
        return self.averaged.module

    def fit(self) -> None:
        """Train until ``config.steps``; validate, log and save on the way."""
        batches = self._batches()
        self.output.mkdir(parents=True, exist_ok=True)
        (self.output / "config.json").write_text(self.config.model_dump_json(indent=2), "utf-8")
        tensorboard = self.config.tensorboard and self.accelerator.is_main_process
        self.journal = Journal(self.output, tensorboard=tensorboard, step=self.position.step)
        try:
            self._loop(batches)
        finally:
            self.journal.close()
        self._finish()

    def _loop(self, source: Iterator[Batch]) -> None:
        began = time.monotonic()
        started = began - self.position.seconds
        batches = Waited(source)
        recent: list[dict[str, Tensor]] = []
        with self.journal.progress() as progress:
            task = progress.add_task(
                "training", total=self.config.steps, completed=self.position.step, rate=0.0,
                visible=self.accelerator.is_main_process,
            )  # fmt: skip
            for parts in batches:
                recent.append(self._train_step(parts))
                self._advance(time.monotonic() - started)
                rate = self._images_per_step / max(1e-9, (time.monotonic() - started) / self.position.step)
                progress.update(task, completed=self.position.step, rate=rate)
                if self._due(self.config.log_every):
                    waiting = batches.seconds / max(1e-9, time.monotonic() - began)
                    self._log({**self._mean_terms(recent), "images_per_second": rate, "waiting": waiting})
                    recent.clear()
                self._occasionally()

    @property
    def _images_per_step(self) -> int:
        return self.config.batch * int(self.accelerator.num_processes)

    def _advance(self, seconds: float) -> None:
        self.position.step += 1
        self.position.samples += self._images_per_step
        self.position.seconds = seconds

    def _occasionally(self) -> None:
        if self.photographs and self._due(self.config.validation.every):
            self._validate()
        if self.config.keep_every and self._due(self.config.keep_every):
            self._save_weights(f"step-{self.position.step:07d}")
        if self._due(self.config.checkpoint_every):
            save_state(self.accelerator, self.output, self.position)

    def _due(self, every: int) -> bool:
        return self.position.step % every == 0 or self.position.step == self.config.steps

    def _batches(self) -> Iterator[Batch]:
        """This process's batches, in ``accumulate`` parts each; sample i belongs to process i mod N."""
        remaining = (self.config.steps - self.position.step) * self._images_per_step
        end = self.position.samples + remaining
        # Loader processes are forked: OpenCV's thread pool, once used in the parent, would hang in them.
        cv2.setNumThreads(0)
        build = build_parts if self.config.data.compose == "device" else build_dataset
        dataset = build(self.config.data, seed=self.config.seed, length=end)
        first = self.position.samples + self.accelerator.process_index
        workers = self.config.data.workers
        loader = DataLoader(
            dataset,
            batch_size=self.config.batch // self.config.accumulate,
            sampler=GlobalOrder(first, end, self.accelerator.num_processes),
            num_workers=workers,
            worker_init_fn=quiet_worker,
            prefetch_factor=4 if workers else None,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        return _grouped(iter(loader), self.config.accumulate)

    def _train_step(self, parts: Batch) -> dict[str, Tensor]:
        """One optimiser step; returns this process's share of every loss term."""
        training_mode(self.model)
        samples = tuple(self._on_device(part) for part in parts)
        # The losses are means over the unknown pixels of the whole batch, of all parts and processes.
        total = self.accelerator.reduce(torch.stack([sample.unknown.sum() for sample in samples]).sum())
        self.optimiser.zero_grad()
        shares = []
        for number, sample in enumerate(samples, start=1):
            alone = number < len(samples)
            with self.accelerator.no_sync(self.step_module) if alone else nullcontext():
                terms = self.step_module(sample, total)
                # Gradients are averaged over the processes; shares have to be added.
                self.accelerator.backward(_sum(terms) * self.accelerator.num_processes)
            shares.append({name: term.detach() for name, term in terms.items()})
        self._update()
        return _added(shares)

    def _update(self) -> None:
        if self.config.clip is not None:
            self.accelerator.clip_grad_norm_(self.step_module.parameters(), self.config.clip)
        self.optimiser.step()
        self.schedule.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def _on_device(self, batch: Sample | PackedParts) -> Sample:
        device = self.accelerator.device
        if isinstance(batch, PackedParts):
            moved = compose(batch, device)
        else:
            moved = Sample(*(tensor.to(device, non_blocking=True) for tensor in batch))
        channels_last = moved.network_input.contiguous(memory_format=torch.channels_last)
        return moved._replace(network_input=channels_last)

    def _mean_terms(self, recent: list[dict[str, Tensor]]) -> dict[str, float]:
        """Loss and terms since the last row, of all processes."""
        means = {
            name: float(self.accelerator.reduce(torch.stack([terms[name] for terms in recent]).mean()))
            for name in recent[0]
        }
        loss = sum(means.values())
        if not math.isfinite(loss):
            raise DivergenceError(
                f"training diverged before step {self.position.step}",
                got=f"loss {loss}",
                fix=f"--resume with a lower learning_rate than {self.config.learning_rate:g}, or clip",
            )
        return {"loss": loss, **means}

    def _validate(self) -> None:
        model = self.shipped.eval()
        assert self.config.validation.root is not None
        region = Region.UNKNOWN if self.config.validation.root.is_dir() else Region.ALL
        means = mean_scores(score_network(model, prefetched(self.photographs), region=region))
        self._log(means._asdict())
        if self.config.tensorboard:
            self.journal.show(
                [_panel(model, entry) for entry in self.photographs[:PANELS]], self.position.step
            )
        if means.sad < self.position.best:
            self.position.best = means.sad
            self._save_weights("best")

    def _finish(self) -> None:
        self._save_weights("final")
        if not math.isfinite(self.position.best):
            self._save_weights("best")

    def _save_weights(self, name: str) -> None:
        if self.accelerator.is_main_process:
            path = self.output / f"{name}.safetensors"
            checkpoint.save(self.shipped, path, provenance=self._provenance())

    def _provenance(self) -> dict[str, str]:
        position = self.position
        return {
            "command": self.command,
            "seed": str(self.config.seed),
            "steps": str(position.step),
            "images": str(position.samples),
            "hours": f"{position.seconds / 3600:.2f}",
            **({"validation_sad": f"{position.best:.3f}"} if math.isfinite(position.best) else {}),
        }

    def _log(self, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            rate = self.schedule.get_last_lr()[0]
            seconds = round(self.position.seconds, 1)
            self.journal.write(
                {"step": self.position.step, "seconds": seconds, "learning_rate": rate, **values}
            )


def learning_rate_factor(config: TrainConfig, step: int) -> float:
    """Linear warm-up, constant, and a cosine down to zero over the last ``decay_steps``."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    into_decay = step - (config.steps - config.decay_steps)
    if config.decay_steps == 0 or into_decay <= 0:
        return warm
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, into_decay / config.decay_steps)))


def _grouped(batches: Iterator[Any], size: int) -> Iterator[Batch]:
    return iter(lambda: tuple(islice(batches, size)), ())


def _sum(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def _added(shares: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([share[name] for share in shares]).sum() for name in shares[0]}


def _panel(model: DIM, entry: Pair) -> Panel:
    photo = read_sample(entry)
    assert photo.alpha is not None, "photographs that are scored have an alpha"
    return Panel(
        photo.name, photo.image, photo.trimap, predict(model, photo.image, photo.trimap), photo.alpha
    )


def _validation_set(config: TrainConfig) -> list[Pair]:
    settings = config.validation
    return [] if settings.root is None else readable_entries(settings.root, settings.data_root)
