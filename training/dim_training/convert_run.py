"""Convert a run's state of the first version, which accelerate wrote with pickles, to today's files.

The pickles are read by :mod:`dim.checkpoint.pickle_reader`, which runs nothing that is in them. Of the
generators' states only torch's is taken over: no other one is drawn from.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from dim import checkpoint
from dim.checkpoint import pickle_reader
from dim.contract import NetworkConfig
from dim.documents import parse_json
from dim.errors import InputError
from dim.files import current_folder, replace_folder
from dim.network import DIM
from dim_training.run_folder import CONFIG, read_config_of
from dim_training.run_log import METRICS, METRICS_LINES
from dim_training.run_state import DAMAGED, STATE_FILE, Position, RunState, write_state, write_tensors
from dim_training.stages import trained_part


def convert_run(run: Path, output: Path, network: NetworkConfig | None = None) -> None:
    """Write ``output`` with the state of ``run`` in today's files; weights and moments keep their values.

    Args:
        run: folder of a run of an earlier version.
        output: folder to make.
        network: the run's network; None reads it from the run's ``config.json``.

    Raises:
        InputError: no such state, a damaged one, one of another network, or ``output`` exists.
        CheckpointError: a pickle that holds more than data.
    """
    last = current_folder(run / "last")
    if last is None or not (last / STATE_FILE).is_file():
        raise InputError(f"cannot convert {run}", got="no last/ in it", expected="the folder of a run")
    if output.exists():
        raise InputError(f"cannot write {output}", got="it exists", fix="name another folder, or remove it")
    try:
        state, generator, half = _read(last, network or _recorded_network(run))
    except DAMAGED as error:
        raise InputError(
            f"cannot convert {run}", got="a state that is damaged or not of version 1", why=str(error)
        ) from error
    with replace_folder(output) as new:
        write_state(new / "last", state, half=half)
        if generator is not None:
            write_tensors(new / "last" / "random-0.safetensors", {"cpu": generator})
        for name in (METRICS, METRICS_LINES, CONFIG):
            if (run / name).is_file():
                shutil.copyfile(run / name, new / name)


def _recorded_network(run: Path) -> NetworkConfig:
    settings = read_config_of(run)
    if settings is None:
        raise InputError(
            f"cannot convert {run}",
            got=f"no {CONFIG} in it, which names the network",
            fix="--recipe RECIPE, the recipe that it was trained with",
        )
    return NetworkConfig.model_validate(settings["network"])


def _read(last: Path, network: NetworkConfig) -> tuple[RunState, Tensor | None, bool]:
    """Return the state, torch's generator, and whether the weights are float16."""
    document = parse_json((last / STATE_FILE).read_text("utf-8"))
    weights = load_file(last / "model.safetensors")
    half = any("float16" in str(tensor.dtype) for tensor in weights.values())
    model = _network(network, {key.removeprefix("model."): value for key, value in weights.items()}, last)
    averages, averaged = 0, None
    for file in sorted(last.glob("custom_checkpoint_*.pkl")):
        found = pickle_reader.load(file)
        if "n_averaged" in found:
            averages = int(found.pop("n_averaged"))
            tensors = {key.removeprefix("module."): value for key, value in found.items()}
            averaged = _network(network, tensors, last)
    moments = _moments(pickle_reader.load(last / "optimizer.bin", depth=3), model)
    scaler = pickle_reader.load(last / "scaler.pt") if (last / "scaler.pt").is_file() else {}
    random = last / "random_states_0.pkl"
    generator = pickle_reader.load(random)["torch_manual_seed"] if random.is_file() else None
    position = Position(**document)
    generator = generator if isinstance(generator, Tensor) else None
    return RunState(position, model, averaged, averages, moments, scaler), generator, half


def _network(network: NetworkConfig, tensors: dict[str, Tensor], source: Path) -> DIM:
    model = DIM(network)
    checkpoint.load_into(model, tensors, source=str(source))
    return model


def _moments(optimiser: dict[str, Any], model: DIM) -> dict[str, Tensor]:
    """Name the optimiser's numbered states after their parameters."""
    trained = {id(p) for p in trained_part(model).parameters()}
    names = [name for name, p in model.named_parameters() if id(p) in trained]
    return {
        f"{names[number]}.{key}": value
        for number, entry in optimiser["state"].items()
        for key, value in entry.items()
    }
