"""The documents agree with the code and with each other."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rateway.cache.pages import PAGE_ITEMS
from rateway.cli import COMMANDS
from rateway.config.table import ROWS
from rateway.runtime.monitoring.status import PHASES
from rateway.runtime.runner.runner import HELLO_TIMEOUT_S, OPEN_AGAIN_S
from rateway.session.actions import State
from rateway.session.timers import LONGEST_HELLO
from rateway_protocol.contract.errors import ErrorCode
from rateway_protocol.contract.messages import OWN_KEYS
from rateway_protocol.contract.queries import QUERY_TYPES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("packages/*/README.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#([^)]*))?\)|\]\(#([^)]+)\)")


def anchors(page: Path) -> set[str]:
    """The names that a page's headings and its explicit anchors can be linked by."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    named = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return named | set(re.findall(r'<a id="([^"]+)"></a>', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for path, anchor, own in LINK.findall(page.read_text()):
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        wanted = anchor or own
        if not target.exists() or (wanted and target.suffix == ".md" and wanted not in anchors(target)):
            broken.append(f"{path}#{wanted}")
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_example_is_python(page: Path) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    examples = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    compiled = [compile(example, str(page), "exec", flags=flags) for example in examples]
    assert len(compiled) == len(examples)


def test_the_readme_names_every_subcommand_and_the_settings_as_they_are() -> None:
    text = (ROOT / "README.md").read_text()
    assert [name for name in COMMANDS if f"rateway {name}" not in text] == []
    table = {row.env: row.key for row in ROWS}
    settings = text[text.index("## Settings") : text.index("## Moving over")]
    for line in settings.splitlines():
        if line.startswith("| `"):
            variables, keys = (re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:3])
            assert [table[variable] for variable in variables] == keys


def test_the_contract_names_every_error_and_every_message_of_our_own() -> None:
    text = (ROOT / "docs/contract.md").read_text()
    assert [code for code in ErrorCode if f"`{code.value}`" not in text] == []
    assert [key for key in OWN_KEYS if f"`{key}`" not in text] == []


def test_the_queries_are_all_described() -> None:
    text = (ROOT / "docs/queries.md").read_text()
    assert [name for name in QUERY_TYPES if f'"type": "{name}"' not in text] == []


def test_no_source_refers_to_a_document_that_is_not_there() -> None:
    missing = set()
    for path in [*ROOT.glob("packages/**/*.py"), *ROOT.glob("tests/**/*.py")]:
        for name in re.findall(r"\bdocs/[a-z_]+\.(?:md|toml)\b", path.read_text()):
            if not (ROOT / name).exists():
                missing.add(name)
    assert missing == set()


def said(page: str, pattern: str) -> tuple[str, ...]:
    """What a page says at the one place that has these words."""
    (found,) = re.findall(pattern, (DOCS / page).read_text())
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.checklist("K68")
def test_numbers_and_words_in_the_documents_are_those_of_the_code() -> None:
    assert said("session.md", r"Hello has (\d+) seconds") == (f"{HELLO_TIMEOUT_S:g}",)
    assert said("session.md", r"doubled with each one missed, up to (a minute)") and LONGEST_HELLO == 60
    assert PAGE_ITEMS == 8 and set(re.findall(r"(\w+) objects", (DOCS / "cache.md").read_text())) >= {"eight"}
    assert "sixteen objects" not in (DOCS / "cache.md").read_text()
    states = said("operating.md", r"`state` is (`.*?);")[0]
    assert re.findall(r"`(\w+)`", states) == list(PHASES)
    assert said("operating.md", r"the store is tried again every (\d+) seconds") == (f"{OPEN_AGAIN_S:g}",)


@pytest.mark.checklist("K68")
def test_the_states_of_shards_in_the_documents_are_those_of_the_code() -> None:
    text = (DOCS / "metrics.md").read_text()
    line = text[text.index("- `state` of `rateway_shards`:") :].split("\n- ")[0]
    assert set(re.findall(r"`(\w+)`", line)) - {"state", "rateway_shards"} == {state.value for state in State}


def test_the_layers_on_the_page_are_those_that_the_command_prints_from_the_import_contracts() -> None:
    run = subprocess.run([sys.executable, ROOT / "tools/layers"], capture_output=True, text=True, check=True)
    assert len(run.stdout.splitlines()) > 15
    assert f"```\n{run.stdout}```" in (DOCS / "architecture.md").read_text()


GATEWAY = ROOT / "packages/gateway/src/rateway"


def test_the_architecture_names_each_folder_of_the_gateway_and_no_other() -> None:
    text = (DOCS / "architecture.md").read_text()
    text = text[text.index("### Inside the gateway") : text.index("### Inside the other packages")]
    cells = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
    named = {name.rstrip("/") for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    folders = {path.parent.relative_to(GATEWAY).as_posix() for path in GATEWAY.rglob("*.py")} - {"."}
    modules = {path.name for path in GATEWAY.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert named == folders | modules


TASKS = re.split(r"^## ", (DOCS / "extending.md").read_text(), flags=re.MULTILINE)[1:]
STEP = re.compile(r"^(\d+)\. `([^`]+)`: (.+)$", re.MULTILINE)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.split("\n")[0])
def test_each_step_of_extending_names_a_file_and_names_that_are_in_it(task: str) -> None:
    steps = STEP.findall(task)
    assert [int(number) for number, _, _ in steps] == list(range(1, len(steps) + 1)) and len(steps) >= 5
    missing = []
    for _, path, text in steps:
        content = (ROOT / path).read_text() if (ROOT / path).is_file() else None
        # `rateway check`, `python -m …` are commands and `packages/…` are paths: neither is a name in the file.
        names = [name for name in re.findall(r"`([^`]+)`", text) if not re.search(r"[ /]", name)]
        missing += [path] if content is None else [f"{path}: {name}" for name in names if name not in content]
    assert missing == []


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.split("\n")[0])
def test_no_source_with_the_name_of_the_example_is_missing_from_its_list(task: str) -> None:
    (line,) = re.findall(r"^Example: (.+)$", task, re.MULTILINE)
    examples = re.findall(r"`([^`]+)`", line)
    sources = [*GATEWAY.rglob("*.py"), *ROOT.glob("packages/protocol/src/**/*.py")]
    sources += [*ROOT.glob("packages/client/src/**/*.py"), *ROOT.glob("packages/protocol/src/**/*.json")]
    having = {
        path.relative_to(ROOT).as_posix()
        for path in sources
        if any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", path.read_text()) for name in examples)
    }
    listed = {path for _, path, _ in STEP.findall(task)}
    assert having and having - listed == set()


def test_the_readme_counts_the_libraries_that_the_proxy_has_been_tried_with() -> None:
    words = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen")
    ((named, more),) = re.findall(
        r"\*\*Any bot, one line\.\*\* (.+) and (\w+) more connect", (ROOT / "README.md").read_text()
    )
    text = (DOCS / "proxy.md").read_text()
    tried = re.findall(r"^\| (\S+) \| \d+\.\d+\.\d+ \|", text, re.MULTILINE)
    assert set(named.split(", ")) <= set(tried)
    assert len(named.split(", ")) + 10 + words.index(more) == len(tried)


COMMANDS_IN_PAGES = [
    (page, words)
    for page in PAGES
    if page.name != "CHANGELOG.md"
    for words in re.findall(
        r"(?:^|`|\$ |&& )((?:make|python -m benchmarks\.) ?[^`\n#;]+)", page.read_text(), re.MULTILINE
    )
]


def test_every_target_of_make_that_a_page_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        words.split()[1] for _, words in COMMANDS_IN_PAGES if words.startswith("make ") and "`" not in words
    }
    assert {"demo", "bench", "install", "test-fast"} <= named
    assert {name for name in named if re.fullmatch(r"[a-z-]+", name)} - targets == set()


def test_every_benchmark_that_a_page_names_is_there_with_its_options() -> None:
    shared = (ROOT / "benchmarks/rig/results.py").read_text()
    missing, seen = [], 0
    for page, words in COMMANDS_IN_PAGES:
        found = re.match(r"python -m (benchmarks\.\w+)(.*)", words)
        if found is None:
            continue
        seen += 1
        path = ROOT / found[1].replace(".", "/")
        source = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        text = source.read_text() + shared if source.exists() else ""
        options = re.findall(r"(--[a-z-]+)", found[2])
        if not text or any(f'"{option}"' not in text for option in options):
            missing.append((page.name, words))
    assert seen > 20 and missing == []
