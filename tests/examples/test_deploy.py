"""The tests do not build the Dockerfiles: what they name must at least exist in the project."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "deploy"
both = pytest.mark.parametrize("kind", ["cpu", "gpu"])


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def _instructions(kind: str) -> list[tuple[str, str]]:
    text = (FOLDER / f"Dockerfile.{kind}").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


@both
def test_instructions_are_dockers(kind: str) -> None:
    instructions = _instructions(kind)
    assert instructions[0][0] == "FROM"
    known = {"FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "EXPOSE", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in instructions} <= known


@both
def test_extras_and_scripts_are_the_projects(kind: str) -> None:
    runs = " ".join(rest for name, rest in _instructions(kind) if name == "RUN")
    (extras,) = re.findall(r'pip install --no-cache-dir "\.\[([\w,-]+)\]"', runs)
    assert set(extras.split(",")) <= set(_project()["optional-dependencies"])
    assert kind in extras.split(",")
    (entry,) = (json.loads(rest) for name, rest in _instructions(kind) if name == "ENTRYPOINT")
    assert entry[:2] == ["sh", "-c"]
    # The shell makes way for the program, which gets the signals, and passes all arguments on.
    program = entry[2].rpartition("; ")[2].removeprefix("exec ").removesuffix(' "$@"')
    assert program in _project()["scripts"]
    assert entry[2].endswith(f'; exec {program} "$@"')
    assert entry[3:] == [program]


@both
def test_compiled_code_is_in_the_image_and_is_copied_where_it_is_looked_for(kind: str) -> None:
    instructions = _instructions(kind)
    (variables,) = (rest for name, rest in instructions if name == "ENV")
    environment = dict(re.findall(r"(NUMBA_\w+)=(\S+)", variables))
    build = next(rest for name, rest in instructions if "import pymatting" in rest)
    assert f"NUMBA_CPU_NAME={environment['NUMBA_CPU_NAME']} " in build
    (cache,) = re.findall(r"NUMBA_CACHE_DIR=(/opt/dim/\S+)", build)
    copy = f"cp -r {cache} {Path(environment['NUMBA_CACHE_DIR']).parent}/"
    assert copy in next(rest for name, rest in instructions if name == "ENTRYPOINT")
    assert Path(cache).name == Path(environment["NUMBA_CACHE_DIR"]).name


@both
def test_it_does_not_run_as_root_and_names_no_registry(kind: str) -> None:
    instructions = _instructions(kind)
    assert ("USER", "matte") in instructions
    for name, rest in instructions:
        if name == "FROM":
            assert "." not in rest.partition("/")[0].partition(":")[0]


@both
def test_what_the_build_needs_is_in_its_context(kind: str) -> None:
    ignore = (FOLDER / f"Dockerfile.{kind}.dockerignore").read_text().split()
    assert ignore[0] == "*"
    kept = {line[1:] for line in ignore if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {path.split("/")[0] for path in packages} | {"pyproject.toml", project["project"]["readme"]}
    assert needed <= kept
    assert all((ROOT / name).exists() for name in kept)


def _serve_options() -> set[str]:
    import typer.main

    from dim_runtime.cli.app import app

    command = typer.main.get_command(app)
    return {option for parameter in command.commands["serve"].params for option in parameter.opts}  # type: ignore[attr-defined]


def _commands(program: str) -> list[list[str]]:
    """Return the words behind a program's name in all lines of the examples and of the page on serving."""
    paths = [path for path in FOLDER.iterdir() if path.is_file()] + [ROOT / "docs" / "serving.md"]
    lines = [line.strip("#` ") for path in paths for line in path.read_text().splitlines()]
    found = [re.search(rf"(?:^|\s){program} (.+)", line) for line in lines]
    return [match[1].split() for match in found if match]


def _options(words: list[str]) -> set[str]:
    return {word for word in words if word.startswith("--")}


def test_uvicorns_options_exist() -> None:
    uvicorn = pytest.importorskip("uvicorn")
    known = {option for parameter in uvicorn.main.params for option in parameter.opts}
    commands = [words for words in _commands("uvicorn") if _options(words)]
    assert len(commands) >= 2
    for words in commands:
        assert _options(words) <= known, words


def test_gunicorns_options_exist() -> None:
    config = pytest.importorskip("gunicorn.config")
    known = {option for setting in config.KNOWN_SETTINGS for option in setting.cli or ()}
    for words in _commands("gunicorn"):
        assert _options(words) <= known, words


@pytest.mark.parametrize("image", ["dim-matting:cpu", "dim-matting:gpu"])
def test_options_of_containers_exist(image: str) -> None:
    import typer.main

    from dim_runtime.cli.app import app

    command = typer.main.get_command(app)
    commands = [words for words in _commands(image) if words[0] not in (".", "#")]
    assert {words[0] for words in commands} >= {"run", "serve"}
    for name, *words in commands:
        parameters = command.commands[name].params  # type: ignore[attr-defined]
        assert _options(words) <= {option for each in parameters for option in each.opts}, words


def test_the_servers_time_limits_fit_those_around_it() -> None:
    from dim_runtime.serve.limits import Limits
    from dim_runtime.serve.server import FETCH_SECONDS

    needed = Limits().job_seconds + FETCH_SECONDS
    deployment, _ = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= needed
    assert _compose()["stop_grace_period"] == "6m"
    assert needed <= 6 * 60
    for words in (*_commands("uvicorn"), *_commands("gunicorn")):
        for option, value in pairwise(words):
            if option in ("--timeout-graceful-shutdown", "--graceful-timeout"):
                assert int(value) >= needed


def _compose() -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["matte"]
    return service


def _container() -> dict[str, Any]:
    deployment, _ = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container)


def test_the_servers_options_exist() -> None:
    for command in (_compose()["command"], _container()["args"]):
        assert command[0] == "serve"
        assert {word for word in command if word.startswith("--")} <= _serve_options()


def test_compose_builds_a_dockerfile_that_is_there() -> None:
    build = _compose()["build"]
    context = (FOLDER / build["context"]).resolve()
    assert context == ROOT
    assert (context / build["dockerfile"]).is_file()


def test_a_client_of_several_pods_stays_with_the_one_that_knows_its_jobs() -> None:
    deployment, service = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    assert deployment["spec"]["replicas"] > 1
    assert service["spec"]["sessionAffinity"] == "ClientIP"


def test_probes_are_routes_of_the_server() -> None:
    pytest.importorskip("fastapi")
    from dim_runtime import Matting
    from dim_runtime.backends.fake import FakeBackend
    from dim_runtime.serve.api import create_app

    with Matting.from_backend(FakeBackend()) as matting:
        routes = set(create_app(matting).openapi()["paths"])
    probes = ("readinessProbe", "livenessProbe", "startupProbe")
    assert {_container()[probe]["httpGet"]["path"] for probe in probes} <= routes


def test_the_application_for_worker_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("onnxruntime")
    from fastapi.testclient import TestClient

    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setenv("DIM_SERVE_TOKEN", "choose-one")
    monkeypatch.setenv("DIM_SERVE_THREADS", "1")
    monkeypatch.setenv("DIM_SERVE_HOSTS", "matte.example,localhost")
    app = importlib.import_module("app").create()
    with TestClient(app, base_url="http://matte.example") as client:
        assert client.get("/ready").status_code == 200
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers={"Authorization": "Bearer choose-one"}).status_code == 200
    with TestClient(app, base_url="http://other.example") as client:
        assert client.get("/health").status_code == 400


def test_the_servers_artefact_declares_the_tensors_of_the_contract() -> None:
    from dim_runtime.backends.kserve import _EXPECTED

    settings = json.loads((FOLDER / "servers/mlserver/model-settings.json").read_text())
    declared = {tensor["name"]: tensor["datatype"] for tensor in (*settings["inputs"], *settings["outputs"])}
    assert declared == _EXPECTED
    assert (FOLDER / "servers/mlserver" / f"{settings['implementation'].split('.')[0]}.py").is_file()


def test_the_health_check_is_a_text_that_a_shell_reads() -> None:
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    command = compose["services"]["matte"]["healthcheck"]["test"]
    # Of a list, podman-compose 1.0 makes "/bin/sh -c python' '-c' ''import …": a syntax error.
    assert isinstance(command, str)
    program, option, code = shlex.split(command)
    assert (program, option) == ("python", "-c")
    compile(code, "health check", "exec")
    # As podman-compose 1.0 gives it to Podman, and Podman to a shell.
    assert shlex.split(f"/bin/sh -c {shlex.quote(command)}") == ["/bin/sh", "-c", command]
