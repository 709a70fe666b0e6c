"""The training loop: step, log, validate, save; :mod:`dim_training.build` makes the parts."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import NoReturn

import torch
from accelerate.utils import broadcast, gather_object
from torch import Tensor

from dim import checkpoint
from dim.errors import DimError
from dim.files import os_errors
from dim_runtime.images.pairs import Pair, read_sample
from dim_training import run_folder
from dim_training.build import Run
from dim_training.config import TrainConfig
from dim_training.data.dataset import Sample
from dim_training.data.loader import STOP_SIGNALS, Batch, TimedIterator
from dim_training.data.on_device import PackedParts, compose
from dim_training.devices import describe, float32_convolutions
from dim_training.run_log import Panel, RunLog
from dim_training.scoring.evaluate import score_network
from dim_training.scoring.photographs import prefetched
from dim_training.scoring.predictors import ValidationPredictor
from dim_training.scoring.scores import Region, mean_scores
from dim_training.stages import training_mode

PANELS = 4
"""Number of photographs that TensorBoard shows at each validation."""


class DivergenceError(DimError):
    """The loss or a weight is not finite."""

    exit_code = 1


class StopRequest:
    """The first SIGINT or SIGTERM since :meth:`noted` began.

    Attributes:
        signal: the signal; None before it.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._handlers: dict[signal.Signals, signal._HANDLER] = {}

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the signals inside the block instead of ending; a second one acts as it did before.

        Python handles signals in its main thread alone: in another thread nothing is noted.
        """
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            self._restore()

    def end(self) -> NoReturn:
        """Raise what ends a process after the signal: KeyboardInterrupt, or SystemExit with 128 + SIGTERM.

        A process that has no signal of its own ends as after SIGTERM: another process of its run had one.
        """
        if self.signal is signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            # None stands for a handler that Python did not install and cannot install again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._handlers = {}


class Trainer:
    """The loop of a run, in one process or several.

    It writes ``last/`` (everything that resuming needs), ``best.safetensors`` (lowest mean SAD on the
    validation photographs; the final weights without any), ``final.safetensors``, ``step-N.safetensors``
    if the recipe keeps some, ``config.json``, ``metrics.csv`` and ``metrics.jsonl``.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.config, self.position, self.accelerator = run.config, run.position, run.accelerator
        self.stop = StopRequest()
        self._saved_step, self._saved_seconds = self.position.step, self.position.seconds

    def fit(self) -> None:
        """Train until ``config.steps``; validate, log and save on the way.

        After SIGINT or SIGTERM the step in progress is completed and the state saved. A run that ends before
        its first step leaves none of its files.

        Raises:
            DivergenceError: the loss or a weight is not finite.
            KeyboardInterrupt: SIGINT.
            SystemExit: SIGTERM, with the code 143.
        """
        try:
            self._fit()
        finally:
            if self.position.step == 0 and self.accelerator.is_main_process:
                run_folder.clear(self.run.output)

    def _fit(self) -> None:
        run, is_main = self.run, self.accelerator.is_main_process
        if is_main:
            with os_errors(run.output):
                run.output.mkdir(parents=True, exist_ok=True)
            if self.position.step == 0:
                run_folder.clear(run.output)
            run_folder.write_config(
                run.output, self.config, step=self.position.step, changed=bool(run.changes)
            )
        # No process writes into the folder before the earlier run is gone.
        self.accelerator.wait_for_everyone()
        tensorboard = self.config.tensorboard and is_main
        self.log = RunLog(run.output, tensorboard=tensorboard, step=self.position.step, quiet=not is_main)
        self._introduce()
        try:
            with float32_convolutions(tf32=self.config.tf32), self.stop.noted():
                self._loop()
                self._finish()
        except (KeyboardInterrupt, SystemExit):
            self._explain_interruption()
            raise
        finally:
            self.log.close()
        if self.stop.signal is not None:
            self.stop.end()

    def _introduce(self) -> None:
        count = int(self.accelerator.num_processes)
        processes = f" in {count} processes" if count > 1 else ""
        self.log.note(f"training on {describe(self.accelerator.device)}{processes}")
        for line in self.run.changes:
            self.log.note(f"changed from step {self.position.step} on: {line}")
        if not self.run.photographs:
            self.log.note(
                "no validation.root: nothing is scored, and best.safetensors will be the final weights"
            )

    def _explain_interruption(self) -> None:
        if self._saved_step:
            self.log.note(
                f"interrupted at step {self.position.step}; last/ has the state of step {self._saved_step}; "
                "to continue: the same command with --resume"
            )
        else:
            self.log.note(f"interrupted at step {self.position.step}, before the first state was saved")

    def _loop(self) -> None:
        began = time.monotonic()
        started = began - self.position.seconds
        batches = TimedIterator(self.run.batches)
        recent: list[dict[str, Tensor]] = []
        with self.log.progress() as progress:
            task = progress.add_task(
                "training", total=self.config.steps, completed=self.position.step, rate=0.0
            )
            for parts in batches:
                recent.append(self._train_step(parts))
                self._advance(time.monotonic() - started)
                # Over the whole run: parts before a resume may have had batches of another size.
                rate = self.position.samples / max(1e-9, time.monotonic() - started)
                progress.update(task, completed=self.position.step, rate=rate)
                if self._due(self.config.log_every):
                    waiting = batches.seconds / max(1e-9, time.monotonic() - began)
                    self._log({**self._mean_terms(recent), "images_per_second": rate, "waiting": waiting})
                    recent.clear()
                self._occasionally()

    def _advance(self, seconds: float) -> None:
        self.position.step += 1
        self.position.samples += self.run.images_per_step
        self.position.seconds = seconds

    def _occasionally(self) -> None:
        stops, is_time = self._agreed_requests()
        validates = bool(self.run.photographs) and self._due(self.config.validation.every)
        keeps = self.config.keep_every is not None and self._due(self.config.keep_every)
        saves = self._due(self.config.checkpoint_every) or is_time or stops
        if validates or keeps or saves:
            self._require_finite_weights()
        if validates:
            self._validate()
        if keeps:
            self._save_weights(f"step-{self.position.step:07d}")
        if saves:
            self.run.save_state()
            self._saved_step, self._saved_seconds = self.position.step, self.position.seconds
        if stops:
            self.stop.end()

    def _agreed_requests(self) -> tuple[bool, bool]:
        """Return whether to stop before the last step, and whether ``checkpoint_seconds`` have passed.

        All processes agree: one that has a request has it for all, after the same step.
        """
        limit = self.config.checkpoint_seconds
        stops = self.stop.signal is not None
        is_time = limit is not None and self.position.seconds - self._saved_seconds >= limit
        if self.accelerator.num_processes > 1:
            mine = torch.tensor([stops, is_time], dtype=torch.float32, device=self.accelerator.device)
            stops, is_time = (self.accelerator.reduce(mine) > 0).tolist()
        return stops and self.position.step < self.config.steps, is_time

    def _due(self, every: int) -> bool:
        return self.position.step % every == 0 or self.position.step == self.config.steps

    def _train_step(self, parts: Batch) -> dict[str, Tensor]:
        """Make one optimiser step; return this process's share of every loss term."""
        run = self.run
        self._set_learning_rate()
        training_mode(run.model)
        samples = tuple(self._on_device(part) for part in parts)
        # The losses are means over the unknown pixels of the whole batch, of all parts and processes.
        total = self.accelerator.reduce(torch.stack([sample.unknown.sum() for sample in samples]).sum())
        run.optimiser.zero_grad()
        shares = []
        for number, sample in enumerate(samples, start=1):
            alone = number < len(samples)
            with self.accelerator.no_sync(run.step) if alone else nullcontext():
                terms = run.step(sample, total)
                # Gradients are averaged over the processes; shares have to be added.
                self.accelerator.backward(_sum(terms) * self.accelerator.num_processes)
            shares.append({name: term.detach() for name, term in terms.items()})
        self._update()
        return _added(shares)

    def _set_learning_rate(self) -> None:
        for group in self.run.optimiser.param_groups:
            group["lr"] = self._learning_rate()

    def _learning_rate(self) -> float:
        return self.config.learning_rate * learning_rate_factor(self.config, self.position.step)

    def _update(self) -> None:
        run = self.run
        if self.config.clip is not None:
            self.accelerator.clip_grad_norm_(run.step.parameters(), self.config.clip)
        run.optimiser.step()
        if run.averaged is not None:
            run.averaged.update_parameters(run.model)

    def _on_device(self, batch: Sample | PackedParts) -> Sample:
        device = self.accelerator.device
        if isinstance(batch, PackedParts):
            moved = compose(batch, device)
        else:
            moved = Sample(*(tensor.to(device, non_blocking=True) for tensor in batch))
        channels_last = moved.network_input.contiguous(memory_format=torch.channels_last)
        return moved._replace(network_input=channels_last)

    def _mean_terms(self, recent: list[dict[str, Tensor]]) -> dict[str, float]:
        """Return loss and terms since the last row, of all processes."""
        means = {
            name: float(self.accelerator.reduce(torch.stack([terms[name] for terms in recent]).mean()))
            for name in recent[0]
        }
        loss = sum(means.values())
        if not math.isfinite(loss):
            raise self._divergence(f"loss {loss}")
        return {"loss": loss, **means}

    def _require_finite_weights(self) -> None:
        """Raise before a diverged state could replace the good one in ``last/``."""
        for name, tensor in self.run.model.state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise self._divergence(f"weights that are not finite, among them {name}")

    def _divergence(self, got: str) -> DivergenceError:
        return DivergenceError(
            f"training diverged before step {self.position.step}",
            got=got,
            fix=f"--resume with a lower learning_rate than {self.config.learning_rate:g}, or with clip=1",
        )

    def _validate(self) -> None:
        run, model = self.run, self.run.shipped.eval()
        assert self.config.validation.root is not None
        region = Region.UNKNOWN if self.config.validation.root.is_dir() else Region.ALL
        for buffer in model.buffers():
            # Batch norm's statistics of the main process are the ones that are shipped.
            broadcast(buffer)
        # The photographs are shared out: photograph i goes to process i mod N.
        mine = run.photographs[self.accelerator.process_index :: self.accelerator.num_processes]
        scores = gather_object(score_network(model, prefetched(mine), region=region, note=self.log.note))
        means = mean_scores(scores)
        self._log(means._asdict())
        if self.config.tensorboard and self.accelerator.is_main_process:
            predictor = ValidationPredictor(model, self.log.note)
            self.log.show(
                [_panel(predictor, entry) for entry in run.photographs[:PANELS]], self.position.step
            )
        if means.sad < self.position.best:
            self.position.best = means.sad
            about = "lowest mean SAD of the validations so far"
            self._save_weights("best", best=about, validation_sad=f"{means.sad:.3f}")

    def _finish(self) -> None:
        self._require_finite_weights()
        self._save_weights("final")
        if not math.isfinite(self.position.best):
            # Other commands take best.safetensors; its provenance states that nothing was compared.
            self._save_weights("best", best="the last weights: nothing was scored")

    def _save_weights(self, name: str, **about: str) -> None:
        if self.accelerator.is_main_process:
            path = self.run.output / f"{name}.safetensors"
            checkpoint.save(self.run.shipped, path, provenance={**self._provenance(), **about})

    def _provenance(self) -> dict[str, str]:
        position = self.position
        return {
            "command": self.run.command,
            "seed": str(self.config.seed),
            "steps": str(position.step),
            "images": str(position.samples),
            "hours": f"{position.seconds / 3600:.2f}",
        }

    def _log(self, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            seconds = round(self.position.seconds, 1)
            self.log.write(
                {
                    "step": self.position.step,
                    "seconds": seconds,
                    "learning_rate": self._learning_rate(),
                    **values,
                }
            )


def learning_rate_factor(config: TrainConfig, step: int) -> float:
    """Return the share of the learning rate after ``step`` steps.

    It rises linearly over the warm-up, stays at 1, and falls to zero along a cosine over the last
    ``decay_steps``.
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    into_decay = step - (config.steps - config.decay_steps)
    if config.decay_steps == 0 or into_decay <= 0:
        return warm
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, into_decay / config.decay_steps)))


def _sum(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def _added(shares: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([share[name] for share in shares]).sum() for name in shares[0]}


def _panel(predictor: ValidationPredictor, entry: Pair) -> Panel:
    photo = read_sample(entry)
    assert photo.alpha is not None, "photographs that are scored have an alpha"
    return Panel(photo.name, photo.image, photo.trimap, predictor(photo.image, photo.trimap), photo.alpha)
