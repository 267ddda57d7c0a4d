"""The rules of the house: who may import whom, how long a file may be, and that classes are abstract or final."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("configs", "tasks", "privacy", "clients", "server", "simulation")
MAY_IMPORT = {
    "configs": {"configs"},
    "tasks": {"configs", "tasks"},
    "privacy": {"privacy"},
    "clients": {"configs", "tasks", "privacy", "clients"},
    "server": {"configs", "tasks", "privacy", "server"},
    "simulation": set(PACKAGES),
}
FILES = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))
ONLY_IN = {
    "opacus": {"clients/gradients.py"},
    "ray": {
        "simulation/engines/ray.py",
        "simulation/engines/ray_cells.py",
        "simulation/engines/ray_classes.py",
        "simulation/engines/ray_cluster.py",
        "simulation/engines/ray_node.py",
    },
    "flwr": {
        "clients/app.py",
        "clients/secure_sum.py",
        "server/app.py",
        "server/strategy.py",
        "server/roster.py",
        "server/exchange.py",
        "server/secure_sum.py",
        "server/unmasking.py",
        "simulation/engines/answering.py",
        "simulation/engines/envelope.py",
        "simulation/engines/grid.py",
        "simulation/engines/inline.py",
        "simulation/engines/ray.py",
        "simulation/engines/ray_classes.py",
        "simulation/engines/ray_node.py",
        "simulation/engines/flower.py",
        "simulation/engines/running.py",
    },
}
THIRD_PARTY = {"configs": {"pydantic", "pydantic_core", "yaml"}, "privacy": {"numpy", "scipy", "dp_accounting"}}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_keep_to_the_house(path: Path) -> None:
    import sys

    package = path.relative_to(ROOT).parts[0]
    tops = {name.partition(".")[0] for name in imports(path)}
    assert tops & set(PACKAGES) <= MAY_IMPORT[package]
    for library, files in ONLY_IN.items():
        assert library not in tops or name_of(path) in files, f"{library} in {name_of(path)}"
    if package in THIRD_PARTY:
        assert tops - set(PACKAGES) - set(sys.stdlib_module_names) <= THIRD_PARTY[package]
    assert not tops & {"tests", "benchmarks", "examples"}


@pytest.mark.parametrize("path", sorted((ROOT / "server" / "adversary").glob("*.py")), ids=name_of)
def test_the_adversary_knows_no_dataset_and_no_seed(path: Path) -> None:
    names = imports(path)
    allowed = {"tasks.losses", "tasks.models", "tasks.models.build", "tasks.models.spec"}
    assert {n for n in names if n.startswith("tasks")} <= allowed
    assert not {n for n in names if n.startswith("configs.seeds")}
    assert "root_of" not in path.read_text()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short_and_classes_abstract_or_final(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    tree = ast.parse(text)
    based_on = {b.id for n in ast.walk(tree) if isinstance(n, ast.ClassDef) for b in n.bases if isinstance(b, ast.Name)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        bases = {ast.unparse(b) for b in node.bases}
        decorators = {ast.unparse(d) for d in node.decorator_list}
        abstract = bool(bases & {"ABC", "Protocol", "Section", "BaseModel", "FedwardError", "Exception", "ValueError"})
        actor = any("ray.remote" in d for d in decorators)
        inner = "final" in decorators or abstract or actor or node.name in based_on
        assert inner or bases & {"LedgerError", "NamedTuple"}, f"{node.name} is neither abstract nor final"


def test_the_server_holds_no_seed() -> None:
    from configs import Experiment, root_of
    from server.settings import ServerSettings

    experiment = Experiment().with_seed(4242)
    text = str(ServerSettings.of(experiment, ROOT).to_config())
    assert "4242" not in text
    assert root_of(4242, "hospitals") not in text
