"""Run everything that one GPU can show about this project, and write the evidence.

usage: python tools/gpu/kit.py [--output FOLDER] [--device cuda] [--minutes 25] [--dry] [--only STEP …]

Each step is a process with a time limit and a JSON in FOLDER (by default docs/gpu-evidence/HOST). A step that
fails does not stop the others; a step for which no time is left is skipped. README.md beside this file lists
the steps. ``--dry`` runs the same commands on the CPU with a tiny network.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from dim.files import write_text
from dim_runtime.backends.open import default_model

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
COMMAND = "from {package}.cli import main; main()"


class Setting(NamedTuple):
    """Options of a run.

    Attributes:
        output: folder of the evidence.
        device: "cuda", "cuda:N", or "cpu" of a dry run.
        dry: tiny sizes.
    """

    output: Path
    device: str
    dry: bool


class Step(NamedTuple):
    """One part of the kit.

    Attributes:
        name: also the stem of its JSON.
        seconds: limit of its process; the kit skips a step for which less than a tenth of it is left.
        command: makes its command line.
        summary: makes one line for the table from its JSON.
    """

    name: str
    seconds: int
    command: Callable[[Setting], list[str]]
    summary: Callable[[Any], str]


def main() -> int:
    """Run the steps and return the exit code: 1 if one of them failed."""
    arguments = parse()
    setting = Setting(arguments.output, "cpu" if arguments.dry else arguments.device, arguments.dry)
    setting.output.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * arguments.minutes
    chosen = [step for step in STEPS if not arguments.only or step.name in arguments.only]
    rows = [run(step, setting, ends - time.monotonic()) for step in chosen]
    write_table(setting, rows)
    print((setting.output / "table.md").read_text(encoding="utf-8"))
    return int(any(row["state"] != "passed" for row in rows))


def run(step: Step, setting: Setting, left: float) -> dict[str, Any]:
    """Run one step in a process; its output goes to NAME.log."""
    started = time.monotonic()
    if left < step.seconds / 10:
        return {"step": step.name, "state": "skipped", "seconds": 0.0, "found": f"{left:.0f} s are left"}
    print(f"{step.name} …", flush=True)
    # What an earlier run found must not stand for this one.
    (setting.output / f"{step.name}.json").unlink(missing_ok=True)
    with (setting.output / f"{step.name}.log").open("w", encoding="utf-8") as log:
        try:
            code = subprocess.run(
                step.command(setting),
                stdout=log,
                stderr=log,
                env=environment(),
                timeout=min(step.seconds, left),
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
    state = {0: "passed", None: "out of time"}.get(code, f"failed, exit code {code}")
    return {
        "step": step.name,
        "state": state,
        "seconds": round(time.monotonic() - started, 1),
        "found": found(step, setting),
    }


def found(step: Step, setting: Setting) -> str:
    """Return the step's summary, or where to look if it wrote no JSON."""
    file = setting.output / f"{step.name}.json"
    if not file.exists():
        return f"see {step.name}.log"
    try:
        return step.summary(json.loads(file.read_text(encoding="utf-8")))
    except (KeyError, TypeError, IndexError) as error:
        return f"{step.name}.json lacks {error}"


def write_table(setting: Setting, rows: list[dict[str, Any]]) -> None:
    """Write table.md and kit.json."""
    about = {"device": setting.device, "dry": setting.dry, "system": platform.platform(), "commit": commit()}
    lines = [f"{name}: {value}  " for name, value in about.items()]
    lines += ["", "| step | result | seconds | found |", "|---|---|---|---|"]
    lines += [f"| {row['step']} | {row['state']} | {row['seconds']} | {row['found']} |" for row in rows]
    write_text(setting.output / "table.md", "\n".join(lines) + "\n")
    write_text(setting.output / "kit.json", json.dumps(about | {"steps": rows}, indent=2) + "\n")


def commit() -> str:
    """Return the commit of the checkout, or "unknown" outside of one."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def environment() -> dict[str, str]:
    """Return the environment of the steps: the packages of this checkout come first."""
    packages = [str(REPOSITORY / name) for name in ("dim", "runtime", "export", "training")]
    paths = [*packages, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def tool(package: str, *arguments: object) -> list[str]:
    """Return the command line of one of the project's own commands."""
    return [sys.executable, "-c", COMMAND.format(package=package), *map(str, arguments)]


def script(name: str, setting: Setting, *arguments: object) -> list[str]:
    """Return the command line of a script beside this one."""
    options = [setting.output / f"{Path(name).stem}.json", "--device", setting.device, *arguments]
    return [sys.executable, str(HERE / name), *map(str, options), *(["--dry"] if setting.dry else [])]


def doctor(setting: Setting) -> list[str]:
    """Return the command of the self-test that users run."""
    return tool(
        "dim_runtime", "doctor", "--gpu", "--device", setting.device, "-o", setting.output / "doctor.json"
    )  # fmt: skip


def verify(setting: Setting) -> list[str]:
    """Return the command that holds the embedded model's artefact to PyTorch."""
    model = default_model()
    options = ["--device", setting.device, "--report", setting.output / "verify.json"]
    return tool("dim_export", "verify", model.with_suffix(".safetensors"), model, *options)


def doctor_summary(report: Any) -> str:
    """Return how many checks passed, failed and were skipped."""
    verdicts = [check["verdict"] for check in report["checks"]]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in ("passed", "failed", "skipped"))


def network_summary(report: Any) -> str:
    """Return the fastest form of the network, and how many pooling ties differ."""
    times = {name: row["milliseconds"] for name, row in report["speed"].items() if "milliseconds" in row}
    ties = f"ties differ in {sum(report['ties'].values())} windows"
    if not times:
        return f"{ties}; no speed was measured"
    fastest = min(times, key=times.__getitem__)
    return f"{ties}; fastest: {fastest}, {times[fastest]:.1f} ms"


def backends_summary(report: Any) -> str:
    """Return time and accuracy of each artefact that ran, and which failed."""
    rows = {name: row for name, row in report["artefacts"].items() if "milliseconds" in row}
    found = [
        f"{name} {row['milliseconds']:.1f} ms, {row['share_beyond']:.2%} beyond" for name, row in rows.items()
    ]
    failed = [f"{name} failed" for name in report["artefacts"] if name not in rows]
    return ", ".join([*found, *failed])


def training_summary(report: Any) -> str:
    """Return the speed of training."""
    return f"{report['images_per_s']:.1f} images/s, start of the process included"


STEPS = (
    Step("doctor", 600, doctor, doctor_summary),
    Step("network", 480, lambda setting: script("network.py", setting), network_summary),
    Step("verify", 300, verify, lambda report: f"{len(report)} sections in verify.json"),
    Step("backends", 600, lambda setting: script("backends.py", setting), backends_summary),
    Step("training", 300, lambda setting: script("training.py", setting), training_summary),
)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run what one GPU can show.")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs/gpu-evidence" / platform.node())
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument(
        "--dry", action="store_true", help="the same commands on the CPU, with a tiny network"
    )
    parser.add_argument("--only", nargs="*", choices=[step.name for step in STEPS], help="these steps only")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
