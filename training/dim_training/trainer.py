"""The training loop: accelerate for device and precision, atomic checkpoints, exact sample positions."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import cv2
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from dim import checkpoint
from dim.errors import InputError
from dim.network import DIM
from dim_training.config import TrainConfig
from dim_training.dataset import GlobalOrder, Sample, build_dataset
from dim_training.evaluate import Photograph, mean_sad, read_photographs, score_network
from dim_training.losses import Truth, stage_losses
from dim_training.stages import build_network, trained_part, training_mode

_STATE = "state.json"


class TrainingStep(nn.Module):
    """Forward pass and losses as one module: what accelerate wraps."""

    def __init__(self, model: DIM) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Sample) -> dict[str, Tensor]:
        matte = self.model.matte(batch.network_input)
        # The losses of a bfloat16 forward are summed over many thousand pixels: in float32.
        matte = matte._replace(
            alpha=torch.sigmoid(matte.logits.float()),
            refined=None if matte.refined is None else matte.refined.float(),
        )
        truth = Truth(batch.alpha, batch.foreground, batch.background, batch.image, batch.unknown)
        return stage_losses(self.model.config.stage, matte, truth)


class Trainer:
    """One run of a recipe into a folder.

    Writes ``last/`` (everything that resuming needs), ``best.safetensors`` (lowest mean SAD on the
    validation photographs; the final weights where there are none), ``final.safetensors`` and
    ``metrics.csv``.
    """

    def __init__(
        self,
        config: TrainConfig,
        output: Path,
        *,
        init: Path | None = None,
        device: str = "cpu",
        command: str = "",
    ) -> None:
        self.config, self.output, self.command = config, output, command
        self.accelerator = Accelerator(
            mixed_precision={"fp32": "no"}.get(config.precision, config.precision), cpu=device == "cpu"
        )
        torch.manual_seed(config.seed)
        self.model = build_network(config, init).to(memory_format=torch.channels_last)
        parameters = [p for p in trained_part(self.model).parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(parameters, lr=config.learning_rate)
        schedule = LambdaLR(optimiser, lambda step: learning_rate_factor(config, step))
        self.step_module, self.optimiser = self.accelerator.prepare(TrainingStep(self.model), optimiser)
        self.schedule = schedule
        self.averaged = _averaged(self.model, config.ema)
        self.accelerator.register_for_checkpointing(self.schedule)
        if self.averaged is not None:
            self.accelerator.register_for_checkpointing(self.averaged)
        self.step, self.best, self.seconds = 0, math.inf, 0.0
        self.photographs = _validation_set(config)
        self.console = Console(stderr=True)

    @property
    def shipped(self) -> DIM:
        """The weights that are scored and shipped: the averaged ones where there are any."""
        if self.averaged is None:
            return self.model
        assert isinstance(self.averaged.module, DIM)
        return self.averaged.module

    def resume(self) -> None:
        """Continue from ``last/`` of the output folder."""
        folder = next(
            (f for f in (self.output / "last", self.output / ".last.old") if (f / _STATE).is_file()), None
        )
        if folder is None:
            raise InputError(f"cannot resume {self.output}", got="no last/ in it", fix="leave out --resume")
        self.accelerator.load_state(str(folder))
        state = json.loads((folder / _STATE).read_text("utf-8"))
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]

    def fit(self) -> None:
        """Train until ``config.steps``; validate, log and save on the way."""
        self.output.mkdir(parents=True, exist_ok=True)
        (self.output / "config.json").write_text(self.config.model_dump_json(indent=2), "utf-8")
        with self._progress() as progress:
            task = progress.add_task("training", total=self.config.steps, completed=self.step)
            started, recent = time.monotonic() - self.seconds, []
            for batch in self._batches():
                recent.append(self._train_step(batch))
                self.step += 1
                self.seconds = time.monotonic() - started
                progress.update(task, completed=self.step, description=f"loss {recent[-1]['loss']:.4f}")
                if self._due(self.config.log_every):
                    self._log({name: sum(r[name] for r in recent) / len(recent) for name in recent[0]})
                    recent.clear()
                if self.photographs and self._due(self.config.validation.every):
                    self._validate()
                if self._due(self.config.checkpoint_every):
                    self._save_state()
        self._finish()

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _batches(self) -> DataLoader[Sample]:
        end = self.config.steps * self.config.batch
        # Loader processes are forked: OpenCV's thread pool, once used in the parent, would hang in them.
        cv2.setNumThreads(0)
        dataset = build_dataset(self.config.data, seed=self.config.seed, length=end)
        workers = self.config.data.workers
        return DataLoader(
            dataset,
            batch_size=self.config.batch,
            sampler=GlobalOrder(self.step * self.config.batch, end),
            num_workers=workers,
            worker_init_fn=_quiet_worker,
            prefetch_factor=4 if workers else None,
        )

    def _train_step(self, batch: Sample) -> dict[str, float]:
        training_mode(self.model)
        batch = Sample(*(tensor.to(self.accelerator.device) for tensor in batch))
        batch = batch._replace(
            network_input=batch.network_input.contiguous(memory_format=torch.channels_last)
        )
        self.optimiser.zero_grad()
        terms = self.step_module(batch)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise InputError(
                f"training diverged at step {self.step}", got=f"loss {loss.item()}", fix="lower learning_rate"
            )
        self.accelerator.backward(loss)
        if self.config.clip is not None:
            self.accelerator.clip_grad_norm_(self.step_module.parameters(), self.config.clip)
        self.optimiser.step()
        self.schedule.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        return {"loss": loss.item(), **{name: term.item() for name, term in terms.items()}}

    def _validate(self) -> None:
        model = self.shipped.eval()
        sad = mean_sad(score_network(model, self.photographs))
        self._log({"sad": sad})
        if sad < self.best:
            self.best = sad
            checkpoint.save(model, self.output / "best.safetensors", provenance=self._provenance())

    def _finish(self) -> None:
        self._save_state()
        model = self.shipped.eval()
        checkpoint.save(model, self.output / "final.safetensors", provenance=self._provenance())
        if not self.photographs:
            checkpoint.save(model, self.output / "best.safetensors", provenance=self._provenance())

    def _provenance(self) -> dict[str, str]:
        return {
            "command": self.command,
            "seed": str(self.config.seed),
            "steps": str(self.step),
            "hours": f"{self.seconds / 3600:.2f}",
            **({"validation_sad": f"{self.best:.3f}"} if math.isfinite(self.best) else {}),
        }

    def _log(self, values: dict[str, float]) -> None:
        rate = self.schedule.get_last_lr()[0]
        row: dict[str, Any] = {
            "step": self.step,
            "seconds": round(self.seconds, 1),
            "learning_rate": rate,
            **values,
        }
        self.console.print("  ".join(f"{k} {v:.5g}" for k, v in row.items()))
        _append_csv(self.output / "metrics.csv", row)

    def _save_state(self) -> None:
        """Write ``last/`` beside the old one and swap: an interruption leaves one of the two whole."""
        new, last, old = (self.output / name for name in (".last.new", "last", ".last.old"))
        shutil.rmtree(new, ignore_errors=True)
        self.accelerator.save_state(str(new))
        state = {"step": self.step, "best": self.best, "seconds": self.seconds}
        (new / _STATE).write_text(json.dumps(state), "utf-8")
        shutil.rmtree(old, ignore_errors=True)
        if last.exists():
            os.replace(last, old)
        os.replace(new, last)
        shutil.rmtree(old, ignore_errors=True)

    def _progress(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        return Progress(*columns, console=self.console)


def learning_rate_factor(config: TrainConfig, step: int) -> float:
    """Linear warm-up, constant, and a cosine down to zero over the last ``decay_steps``."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    into_decay = step - (config.steps - config.decay_steps)
    if config.decay_steps == 0 or into_decay <= 0:
        return warm
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, into_decay / config.decay_steps)))


def _averaged(model: DIM, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None

    def average(averaged: Any, current: Any, count: Any) -> None:
        # At first a long memory would hold little but the random start.
        warm = min(decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(warm)(averaged, current, count)  # type: ignore[no-untyped-call]

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def _validation_set(config: TrainConfig) -> list[Photograph]:
    return [] if config.validation.root is None else read_photographs(config.validation.root)


def _quiet_worker(_: int) -> None:
    """One thread for each loader process: the cores belong to the network."""
    torch.set_num_threads(1)


def _append_csv(path: Path, row: dict[str, Any]) -> None:
    columns = ("step", "seconds", "learning_rate", "loss", "loss_alpha", "loss_comp", "loss_refine", "sad")
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        if new:
            writer.writeheader()
        writer.writerow(row)
