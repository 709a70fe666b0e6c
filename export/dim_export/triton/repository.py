"""Write artefacts as a model repository of NVIDIA's Triton Inference Server.

::

    REPOSITORY/
      dim-clean/               one folder per served model
        config.pbtxt
        1/model.onnx           or model.plan: a TensorRT engine without our header

The configuration is written with Triton's own protocol buffers, so that it is always valid. Its parameters
hold the artefact's metadata, which the client, :class:`dim_runtime.backends.kserve.KServeBackend`, reads.

Triton's dynamic batcher joins requests of one shape only. Each fixed window therefore becomes a separate
model whose metadata has this shape, and the runtime cuts every image into windows of exactly this shape.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, METADATA_KEY, OUTPUT_ALPHA, ArtefactMetadata
from dim.extras import require
from dim.files import os_errors, put_folder, scratch_folder
from dim_export.triton.serving import Options, ServedModel, Serving, servings
from dim_runtime.artefacts.engine_file import read_header, read_plan
from dim_runtime.artefacts.onnx_file import read_metadata

VERSION = "1"
_PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan"}
"""Triton's older names, which some releases still require; OpenVINO's back end has none."""


def write_repository(sources: Sequence[Path], repository: Path, options: Options) -> list[ServedModel]:
    """Write one folder for each artefact and window; nothing appears before all of them are complete.

    Args:
        sources: ``.onnx`` and ``.engine`` artefacts.
        repository: created if it is missing. Folders of the same names are replaced; others stay.
        options: see :class:`Options`.

    Raises:
        MissingExtraError: Triton's protocol buffers are not installed.
        ArtefactError, ContractError: an artefact that cannot be read.
        InputError: options that do not fit an artefact, or two models of one name.
    """
    require("write a Triton repository", "tritonclient.grpc", extra="serving")
    found = servings(sources, options)
    repository = repository.resolve()
    # Write beside the repository: a server that polls it must not see unfinished models.
    with os_errors(repository), scratch_folder(repository) as made:
        for serving in found:
            _write_model(serving, made / serving.model.name)
        repository.mkdir(parents=True, exist_ok=True)
        for serving in found:
            name = serving.model.name
            put_folder(made / name, repository / name, aside=made / f"{name}.old")
    return [serving.model for serving in found]


def _write_model(serving: Serving, folder: Path) -> None:
    version = folder / VERSION
    version.mkdir(parents=True)
    if serving.metadata.engine is None:
        _write_onnx(serving, version / "model.onnx")
    else:
        (version / "model.plan").write_bytes(read_plan(serving.source, read_header(serving.source)))
    text = configuration(serving.model, serving.metadata, threads=serving.threads)
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")


def _write_onnx(serving: Serving, target: Path) -> None:
    """Copy an ONNX file; with fixed windows, write their sides into its inputs and output.

    Triton's ONNX Runtime back end refuses outputs whose axes differ from the configuration's.
    """
    window = serving.model.window
    if window is None or read_metadata(serving.source).static_shape is not None:
        shutil.copyfile(serving.source, target)
        return
    require("fix the windows of an ONNX file", "onnx")
    import onnx

    model = onnx.load(serving.source, load_external_data=False)
    # If the server joins no batches, the batch is an axis of the configuration, too, of size 1.
    fixed = dict(enumerate(window, start=1)) | ({} if serving.model.max_batch else {0: 1})
    for tensor in (*model.graph.input, *model.graph.output):
        for axis, size in fixed.items():
            tensor.type.tensor_type.shape.dim[axis].dim_value = size
    onnx.save(model, target)


def configuration(model: ServedModel, metadata: ArtefactMetadata, *, threads: int | None = None) -> str:
    """Return ``config.pbtxt`` of a model, Triton's ``inference.ModelConfig`` in text format."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as triton

    config = triton.ModelConfig(name=model.name, backend=model.engine, max_batch_size=model.max_batch)
    config.platform = _PLATFORMS.get(model.engine, "")
    if model.engine == "openvino":
        config.default_model_filename = "model.onnx"
    height, width = model.window or (-1, -1)
    batch = [] if model.max_batch else [metadata.static_shape[0] if metadata.static_shape else 1]
    config.input.add(name=INPUT_IMAGE, data_type=triton.TYPE_UINT8, dims=[*batch, height, width, 3])
    config.input.add(name=INPUT_TRIMAP, data_type=triton.TYPE_UINT8, dims=[*batch, height, width])
    config.output.add(name=OUTPUT_ALPHA, data_type=triton.TYPE_FP32, dims=[*batch, height, width])
    kind = triton.ModelInstanceGroup.KIND_GPU if model.device == "gpu" else triton.ModelInstanceGroup.KIND_CPU
    config.instance_group.add(kind=kind, count=model.instances)
    if model.max_batch > 1:
        config.dynamic_batching.SetInParent()  # joins waiting requests, delays none
    for key, value in _parameters(model, metadata, threads).items():
        config.parameters[key].string_value = value
    return str(text_format.MessageToString(config, as_utf8=True))


def _parameters(model: ServedModel, metadata: ArtefactMetadata, threads: int | None) -> dict[str, str]:
    found = {METADATA_KEY: metadata.to_json()}
    if model.engine == "onnxruntime" and threads is not None:
        found["intra_op_thread_count"] = str(threads)
    if model.engine == "openvino":
        # Triton reads the shapes from the file, where they are free unless it was exported with --shape.
        found["RESHAPE_IO_LAYERS"] = "YES"
        if threads is not None:
            found["INFERENCE_NUM_THREADS"] = str(threads)
    return found
