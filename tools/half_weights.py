"""Score photographs with an artefact before and after ``openvino.save_model`` with its defaults.

    python tools/half_weights.py DATA [--model MODEL.onnx] [--report FILE.json]

DATA holds images/, trimaps/ and alphas/. The defaults store the weights in fp16. OpenVINO runs both models in
float32 on the whole image, reflected to multiples of the stride. SAD is over unknown pixels, as in
``dim-train test --data FOLDER``.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer

from dim import cli_support, metrics
from dim.bit_depth import quantise8
from dim.files import write_text
from dim.trimap import apply_known
from dim_runtime.artefacts.onnx_file import read_metadata
from dim_runtime.backends.open import default_model
from dim_runtime.backends.openvino_graph import process_core
from dim_runtime.images.pairs import MattingSample, read_samples

app = typer.Typer()


@app.command()
def measure(
    data: Path,
    model: Annotated[Path | None, typer.Option(help="ONNX artefact; the embedded one by default.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the scores as JSON.")] = None,
) -> None:
    """Print the SAD of each photograph before and after, and the change of their mean."""
    import openvino

    model = model or default_model()
    core, stride = process_core(), read_metadata(model).stride
    rows = []
    with TemporaryDirectory() as folder:
        half = Path(folder) / "half.xml"
        openvino.save_model(core.read_model(model), half)
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        networks = [core.compile_model(path, "CPU", options) for path in (model, half)]
        for sample in read_samples(data):
            before, after = (_sad(network, sample, stride) for network in networks)
            rows.append({"name": sample.name, "before": before, "after": after})
            typer.echo(f"{sample.name:12} {before:8.3f} {after:8.3f}")
    before, after = (float(np.mean([row[key] for row in rows])) for key in ("before", "after"))
    typer.echo(f"{'mean':12} {before:8.4f} {after:8.4f}  {after / before - 1:+.3%}")
    if report is not None:
        write_text(
            report, json.dumps({"before": before, "after": after, "photographs": rows}, indent=2) + "\n"
        )


def _sad(network: Any, sample: MattingSample, stride: int) -> float:
    height, width = sample.trimap.shape
    margins = ((0, -height % stride), (0, -width % stride))
    image = np.pad(sample.image, (*margins, (0, 0)), "reflect")[None]
    trimap = np.pad(sample.trimap, margins, "reflect")[None]
    alpha = network({"image": image, "trimap": trimap})["alpha"][0, :height, :width]
    assert sample.alpha is not None, "the folder has alphas/"
    truth = apply_known(sample.alpha, sample.trimap)
    return metrics.sad(apply_known(quantise8(alpha), sample.trimap), truth, sample.trimap)


if __name__ == "__main__":
    cli_support.run(app)
