"""ONNX -> TensorRT plan, with TensorRT 10, TensorRT 11 or TensorRT-RTX: one path for the three.

The network is strongly typed: its precision is that of the graph, and no builder flag lowers it. TensorRT-RTX
builds without a GPU and does so in the tests. TensorRT builds for the local GPU: no GPU has run that path
yet; the tests run it with a stand-in and compare every call with the signatures of the real packages.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple, Self

from dim.contract import INPUT_IMAGE, INPUT_TRIMAP, EngineBuilder, Precision, ShapeProfile
from dim.errors import DimError, InputError
from dim_export.tensorrt.builders import BuilderError, BuildOptions, require_applicable
from dim_export.tensorrt.layers import (
    EngineLayers,
    convolution_names,
    report_of_engine,
    report_of_log,
    types_of_network,
)
from dim_export.tensorrt.timing_cache import load_timings, store_timings
from dim_runtime.artefacts.engine_compatibility import NAMES


class EngineError(DimError):
    """A graph that the builder refused, or an engine that differs from its artefact.

    Attributes:
        errors: every error of the parser or the builder, in order.
    """

    exit_code = 1

    def __init__(
        self, problem: str, *, got: object = None, expected: object = None, errors: list[str], fix: str
    ) -> None:
        why = "; ".join(f"({n}) {text}" for n, text in enumerate(errors, start=1)) or None
        super().__init__(problem, got=got, expected=expected, why=why, fix=fix)
        self.errors = errors


class Built(NamedTuple):
    """A serialised plan and its description.

    Attributes:
        plan: bytes of the engine.
        layers: the engine's own report where there is one, else the network's.
        precision: of most convolutions in the strongly typed network, which the builder must keep.
    """

    plan: bytes
    layers: EngineLayers
    precision: Precision | None


def build_plan(module: Any, builder: EngineBuilder, onnx_model: bytes, options: BuildOptions) -> Built:
    """Parse, configure and build a plan, and read its description.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        onnx_model: a whole ONNX file, weights inside.

    Raises:
        InputError: an option that this builder does not have, or a GPU that it does not know.
        BuilderError: the builder cannot start; TensorRT without a GPU.
        EngineError: the graph was refused; every error of the parser or builder is listed.
    """
    require_applicable(builder, options)
    with Workbench(module, builder) as bench:
        bench.parse(onnx_model)
        bench.configure(options)
        plan = bench.build()
        if options.timing_cache is not None:
            store_timings(bench.config, options.timing_cache)
        prescribed = types_of_network(module, bench.network)
        return Built(plan, bench.layers(plan) or prescribed, prescribed.precision)


class Workbench:
    """TensorRT's objects of one build.

    No other object may hold them: TensorRT keeps the logger of the oldest live builder, so one that lingered
    in a traceback would receive the messages of the next build.
    """

    def __init__(self, module: Any, builder: EngineBuilder) -> None:
        self.module, self.name = module, NAMES[builder]
        self.log = _logger(module)
        self.builder: Any = None
        self.network: Any = None
        self.parser: Any = None
        self.config: Any = None

    def __enter__(self) -> Self:
        try:
            self.builder = self.module.Builder(self.log)
        except Exception as error:  # pybind11 raises a TypeError where the factory returned nothing
            raise BuilderError(
                f"{self.name} cannot start here",
                why="; ".join([*self.log.errors, str(error)]),
                fix="TensorRT needs an NVIDIA GPU and its driver to build; TensorRT-RTX does not",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Each refers to the one after it.
        self.parser = self.config = self.network = self.builder = None

    def parse(self, onnx_model: bytes) -> None:
        """Read a serialised ONNX model into a strongly typed network.

        Raises:
            EngineError: the library cannot read the graph; lists its errors.
        """
        self.network = self.builder.create_network(_strongly_typed(self.module))
        self.parser = self.module.OnnxParser(self.network, self.log)
        if self.parser.parse(onnx_model):
            return
        errors = [_described(self.parser.get_error(index)) for index in range(self.parser.num_errors)]
        raise EngineError(
            f"{self.name} {self.module.__version__} cannot read the graph",
            got=f"{len(errors)} errors",
            errors=errors or self.log.errors,
            fix="export the checkpoint again with this release: dim-export onnx CHECKPOINT -o MODEL.onnx",
        )

    def configure(self, options: BuildOptions) -> None:
        """Apply the options to the builder; TF32 is always off.

        Raises:
            DimError: this library does not support an option.
        """
        self.config = self.builder.create_builder_config()
        # TF32 keeps 10 bits of the mantissa: not what "fp32" promises. It is on unless switched off.
        self.config.clear_flag(self.module.BuilderFlag.TF32)
        # Without it the builder does not report the precision of each layer.
        self.config.profiling_verbosity = self.module.ProfilingVerbosity.DETAILED
        if options.profile is not None:
            self._add_profile(options.profile)
        if options.compute_capabilities:
            self._target(options.compute_capabilities)
        if options.hardware_compatible:
            self.config.hardware_compatibility_level = self.module.HardwareCompatibilityLevel.AMPERE_PLUS
        if options.version_compatible:
            self.config.set_flag(self.module.BuilderFlag.VERSION_COMPATIBLE)
        if options.workspace_bytes is not None:
            self.config.set_memory_pool_limit(self.module.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        if options.timing_cache is not None:
            load_timings(self.config, options.timing_cache)

    def build(self) -> bytes:
        """Build the parsed network as configured, and return the serialised engine.

        Raises:
            EngineError: the builder failed; lists its errors.
        """
        self.log.forget()
        plan = self.builder.build_serialized_network(self.network, self.config)
        if plan is None:
            raise EngineError(
                f"{self.name} {self.module.__version__} cannot build the engine",
                errors=self.log.errors,
                fix="if memory ran out: a larger --workspace, or a smaller --tile",
            )
        return bytes(plan)

    def layers(self, plan: bytes) -> EngineLayers | None:
        """Return the builder's report of the engine's layers; None if it names no convolution."""
        names = convolution_names(self.module, self.network)
        if self.name == NAMES["tensorrt"]:
            # Built on a GPU, so it can be loaded and inspected. TensorRT-RTX lists the layers as it builds.
            return report_of_engine(self.module, self.log, plan, names)
        return report_of_log(self.log.lines, names)

    def _add_profile(self, profile: ShapeProfile) -> None:
        made = self.builder.create_optimization_profile()
        shapes = profile.min, profile.opt, profile.max
        made.set_shape(INPUT_IMAGE, *((*shape, 3) for shape in shapes))
        made.set_shape(INPUT_TRIMAP, *shapes)
        if self.config.add_optimization_profile(made) < 0:
            raise EngineError(
                f"{self.name} refused the shapes",
                got=f"N, H, W from {profile.min} over {profile.opt} to {profile.max}",
                errors=self.log.errors,
                fix="--min, --opt and --max in ascending order",
            )

    def _target(self, capabilities: tuple[str, ...]) -> None:
        known = supported_capabilities(self.module)
        unknown = [capability for capability in capabilities if capability not in known]
        if unknown:
            raise InputError(
                f"{self.name} {self.module.__version__} cannot build for this GPU",
                got=f"compute capability {', '.join(unknown)}",
                expected=", ".join(known),
            )
        self.config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            target = getattr(self.module.ComputeCapability, "SM" + capability.replace(".", ""))
            if not self.config.set_compute_capability(target, index):
                raise EngineError(
                    f"{self.name} refused compute capability {capability}",
                    errors=self.log.errors,
                    fix="leave it out",
                )


def supported_capabilities(module: Any) -> tuple[str, ...]:
    """Return the compute capabilities that a release of TensorRT-RTX builds for: ("7.5", "8.0", …)."""
    codes = sorted(int(name[2:]) for name in dir(module.ComputeCapability) if name.startswith("SM"))
    return tuple(f"{code // 10}.{code % 10}" for code in codes)


def _strongly_typed(module: Any) -> int:
    """Return the flag for strong typing; a release that has only such networks may drop it."""
    flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _described(error: Any) -> str:
    where = f"node {error.node()} {error.node_name()!r} ({error.node_operator()})"
    return f"{where}: {error.desc()}"


def _logger(module: Any) -> Any:
    """Return a logger that keeps the builder's lines, and errors separately."""

    class Collector(module.ILogger):  # type: ignore[misc]  # the base class is known only at run time
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= module.ILogger.ERROR:
                self.errors.append(message)
            self.lines.extend(message.splitlines())

        def forget(self) -> None:
            self.errors.clear()
            self.lines.clear()

    return Collector()
