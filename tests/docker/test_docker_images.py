"""Properties of every Dockerfile. docker/build-without-engine.sh builds and runs the CPU image."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
PINNED = [
    ("tensorrt10", "TENSORRT", "trt10"),
    ("tensorrt10", "PYCUDA", "pycuda"),
    ("tensorrt11", "TENSORRT", "trt11"),
]


def _instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(instruction, arguments) of every line, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line]


def _final_stage(dockerfile: Path) -> dict[str, str]:
    """The last of each instruction after the last FROM."""
    stage: dict[str, str] = {}
    for instruction, arguments in _instructions(dockerfile):
        stage = {"FROM": arguments} if instruction == "FROM" else stage | {instruction: arguments}
    return stage


def _services() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    return services


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
class TestEveryImage:
    def test_runs_as_a_numbered_user_that_is_not_root(self, dockerfile: Path) -> None:
        user = _final_stage(dockerfile)["USER"]  # a number, so that Kubernetes' runAsNonRoot can check it
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)

    def test_is_the_command(self, dockerfile: Path) -> None:
        assert json.loads(_final_stage(dockerfile)["ENTRYPOINT"]) == ["trt-ptq"]

    def test_is_healthy_when_doctor_says_so(self, dockerfile: Path) -> None:
        _, _, command = _final_stage(dockerfile)["HEALTHCHECK"].partition("CMD ")
        assert json.loads(command) == ["trt-ptq", "doctor"]

    def test_can_be_put_on_another_base(self, dockerfile: Path) -> None:
        assert _final_stage(dockerfile)["FROM"] == "${BASE}"

    def test_ends_the_same_way_as_the_others(self, dockerfile: Path) -> None:
        def ending(path: Path) -> str:
            return path.read_text().rpartition("COPY --from=builder")[2]

        assert ending(dockerfile) == ending(DOCKERFILES[0])

    def test_is_a_service_of_compose(self, dockerfile: Path) -> None:
        assert f"docker/{dockerfile.name}" in [service["build"]["dockerfile"] for service in _services().values()]


@pytest.mark.parametrize(("image", "argument", "extra"), PINNED)
def test_a_pinned_version_is_one_that_the_extra_allows(image: str, argument: str, extra: str) -> None:
    arguments = [text for name, text in _instructions(ROOT / "docker" / f"{image}.Dockerfile") if name == "ARG"]
    pin = Requirement(next(text for text in arguments if text.startswith(f"{argument}=")).partition("=")[2])
    [version] = [clause.version for clause in pin.specifier]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {
        requirement.name: requirement for requirement in map(Requirement, project["optional-dependencies"][extra])
    }
    assert wanted[pin.name].specifier.contains(version)


@pytest.mark.parametrize("name", ["tensorrt10", "tensorrt11"])
def test_the_gpu_tests_have_a_stage_that_runs_what_make_runs(name: str) -> None:
    instructions = _instructions(ROOT / "docker" / f"{name}.Dockerfile")
    start = instructions.index(("FROM", "builder AS tests"))
    command = json.loads(next(text for keyword, text in instructions[start:] if keyword == "ENTRYPOINT"))
    assert " ".join(command[1:]) in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("name", ["tensorrt10", "tensorrt11"])
def test_tensorrt_services_reserve_a_gpu(name: str) -> None:
    [device] = _services()[name]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


@pytest.mark.parametrize("name", _services())
def test_a_service_gets_models_data_and_caches(name: str) -> None:
    mounts = [re.sub(r"\$\{.*?\}", "", volume) for volume in _services()[name]["volumes"]]
    assert mounts == [":/models", ":/data:ro", "caches:/caches"]
