"""The command line: the old forms, the subcommands, pages one can learn from, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rateway import __version__, app, cli
from rateway.config import Settings
from rateway.native.form import form

SAMPLE = 'token = "token"\nintents = 19553\namqp = "amqp://guest:guest@localhost/"\n'


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings with which the gateway would have been run, in place of running it."""
    seen: list[Settings] = []

    def run(settings: Settings) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr(app, "run", run)
    for name in ("DISCORD_TOKEN", "INTENTS", "AMQP_URI", "LOG_FORMAT"):
        monkeypatch.delenv(name, raising=False)
    return seen


@pytest.fixture
def sample(tmp_path: Path) -> str:
    file = tmp_path / "rateway.toml"
    file.write_text(SAMPLE)
    return str(file)


def test_the_gateway_runs_from_the_environment(
    started: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "DISCORD_TOKEN": "a.b.c",
        "INTENTS": "GUILDS",
        "AMQP_URI": "amqp://localhost/",
    }.items():
        monkeypatch.setenv(name, value)
    assert cli.main([]) == 0
    assert [settings.session.intents for settings in started] == [1]


@pytest.mark.parametrize("form", [["-c"], ["--config"], []])
def test_the_gateway_runs_from_a_file_in_the_new_and_in_the_old_form(
    started: list[Settings], sample: str, form: list[str]
) -> None:
    assert cli.main([*form, sample]) == 0
    assert cli.main([f"--config={sample}"]) == 0
    assert [settings.session.token.reveal() for settings in started] == ["token", "token"]


def test_nothing_starts_on_a_broken_configuration(
    started: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([]) == 78
    assert started == []
    said = capsys.readouterr().err
    assert said.startswith("rateway: 3 mistakes in the configuration")
    assert all(name in said for name in ("DISCORD_TOKEN", "INTENTS", "AMQP_URI"))


def test_mistakes_are_lines_for_a_machine_where_logs_are(
    started: list[Settings], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    monkeypatch.setenv("LOG_FORMAT", "json")
    assert cli.main([]) == 78
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["where"] for line in lines] == ["DISCORD_TOKEN", "INTENTS", "AMQP_URI"]


@pytest.mark.parametrize(
    ("word", "hint"), [("chekc", "rateway check"), ("simulat", "rateway simulate"), ("zzz", "commands are")]
)
def test_a_slip_in_a_command_is_told(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([word])
    assert ended.value.code == 2
    assert hint in capsys.readouterr().err


def test_two_files_are_one_too_many(sample: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["-c", sample, "other.toml"])
    assert ended.value.code == 2
    assert "two files" in capsys.readouterr().err


def test_the_configuration_may_stand_before_a_command(sample: str) -> None:
    assert cli.split_words(["-c", sample, "check", "--json"]) == ("check", ["-c", sample, "--json"])
    assert cli.split_words([f"--config={sample}", "stop"]) == ("stop", [f"--config={sample}"])
    assert cli.split_words(["check", "-c", sample]) == ("check", ["-c", sample])
    assert cli.split_words(["-c", sample]) == (None, ["-c", sample])
    assert cli.split_words(["./check"]) == (None, ["./check"])


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"rateway {__version__} ({form()})\n"
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    page = capsys.readouterr().out
    for word in (*cli.available_commands(), "examples:", "exit codes:", "docs/settings.md", "DISCORD_TOKEN"):
        assert word in page


@pytest.mark.parametrize("name", sorted(cli.available_commands()))
def test_each_command_has_a_page_with_examples_and_exit_codes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module = cli.command_module(name)
    assert cli.COMMANDS[name] == module.SUMMARY
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    page = capsys.readouterr().out
    assert f"usage: rateway {name}" in page
    assert "examples:" in page and f"rateway {name}" in module.EPILOG
    assert "exit code" in page


def test_help_imports_no_library_that_costs_time() -> None:
    code = (
        "import sys; from rateway import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'aiohttp', 'aio_pika', 'asyncio', 'msgspec', 'rich', 'uvloop', 'picows', 'lmdb'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
