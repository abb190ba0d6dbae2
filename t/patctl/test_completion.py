"""completion: the scripts know what patctl takes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from basics import PATCTL
from conftest import USAGE
from terminal import a_terminal
from test_usage import COMMANDS, run

FOLDER = Path(__file__).parent

# Outside of a completion, there is no compopt.
OFFER = """
source /dev/stdin
compopt() { :; }
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_patctl
printf '%s\\n' "${COMPREPLY[@]}"
"""


def complete(*words: str, cwd: Path = FOLDER) -> list[str]:
    """What bash offers for the last word."""
    command = ["bash", "-c", OFFER, "-", "patctl", *words]
    done = subprocess.run(command, input=run("completion", "bash").stdout, cwd=cwd, capture_output=True, text=True,
                          timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def options_in_help(command: str) -> set[str]:
    return set(re.findall(r"^ +(?:-h, *)?(--[a-z-]+)", run("help", command).stdout, re.MULTILINE))


def test_commands_are_completed() -> None:
    assert set(complete("")) >= set(COMMANDS)
    assert complete("re") == ["revoke", "restore-access"]
    assert complete("--store", "/x", "rot") == ["rotate"]
    assert set(complete("--")) >= {"--store", "--json", "--version", "--help"}
    assert complete("help", "ba") == ["backup"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_its_options(command: str) -> None:
    assert set(complete(command, "--")) == options_in_help(command)
    assert complete(command, "--hel") == ["--help"]


def test_values_are_completed_by_what_they_are() -> None:
    assert complete("list", "--status", "re") == ["revoked"]
    assert complete("list", "--status", "=", "re") == ["revoked"]
    assert set(complete("list", "--sort", "")) == {"id", "status", "subject", "name", "expires", "issued"}
    assert complete("import", "test_comp") == ["test_completion.py"]
    assert complete("stats", "--pepper-file", "test_comp") == ["test_completion.py"]
    assert complete("--store", "../patc") == ["../patctl"]
    assert complete("stats", "--store", "test_comp") == []
    assert complete("revoke", "--subject", "") == complete("revoke", "") == complete("stats", "") == []
    assert set(complete("completion", "")) == {"bash", "zsh"}


def test_the_value_of_an_option_is_no_command() -> None:
    assert complete("--store", "list", "--pepper-file", "stats", "rot") == ["rotate"]
    assert complete("--store", "=", "list", "rot") == ["rotate"]
    assert "--overlap" in complete("--map-size", "list", "rotate", "--o")
    assert complete("--map-size", "") == complete("list", "--limit", "") == complete("list", "--name", "-") == []
    assert complete("list", "--store", "../patc") == complete("--store", "=", "../patc") == ["../patctl"]
    assert "--limit" in complete("list", "--subject", "stats", "--l")


def test_a_value_may_have_an_equals_sign(tmp_path: Path) -> None:
    for name in ("exp=1", "exp=2=a", "another"):
        (tmp_path / name).write_text("")
    assert set(complete("import", "exp", "=", cwd=tmp_path)) == {"1", "2=a"}
    assert complete("import", "exp", "=", "2", cwd=tmp_path) == ["2=a"]
    assert complete("import", "exp", "=", "2", "=", cwd=tmp_path) == ["a"]
    assert complete("import", "--strict", "exp", "=", "1", cwd=tmp_path) == ["1"]
    assert complete("stats", "--pepper-file", "=", "exp", "=", "1", cwd=tmp_path) == ["1"]
    assert complete("stats", "--pepper-file", "exp", "=", "1", cwd=tmp_path) == ["1"]
    assert complete("issue", "--claim", "plan", "=", cwd=tmp_path) == complete("=", cwd=tmp_path) == []
    assert complete("--store", "a", "=", "list", "rot") == complete("--store", "=", "a", "=", "list", "rot") == ["rotate"]


def test_after_two_dashes_there_are_no_options() -> None:
    assert complete("revoke", "--", "-") == []
    assert complete("import", "--", "test_comp") == ["test_completion.py"]
    assert complete("help", "--", "ba") == ["backup"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_completes_what_is_not_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "_patctl").write_text(run("completion", "zsh").stdout)
    with a_terminal(100) as terminal:
        shell = subprocess.Popen(["zsh", "-f", "-i"], stdin=terminal.slave, stdout=terminal.slave, cwd=FOLDER,
                                 stderr=terminal.slave, start_new_session=True, env={**os.environ, "TERM": "dumb"})
        try:
            # The terminal shows what is typed, which is not what is waited for.
            terminal.type(f"fpath=({tmp_path} $fpath); autoload -U compinit; compinit -u -D; complete_line() "
                          "{ zle complete-word; print -r -- \"<$BUFFER>\"; BUFFER='' }; zle -N complete_line; "
                          "bindkey '^I' complete_line; echo '<'ready'>'\n")
            terminal.read_until("<ready>")
            for words, completed in (("patctl --store list rot", "ate "),
                                     ("patctl --map-size stats list --li", "mit="),
                                     ("patctl list --status rev", "oked "),
                                     ("patctl import test_comp", "letion.py "),
                                     ("patctl list --store ../patc", "tl/"),
                                     ("patctl revoke --tok", "en-stdin "),
                                     ("patctl rotate --over", "lap="),
                                     ("patctl rotate x --over", "lap="),
                                     ("patctl list -- --li", ""),
                                     ("patctl --map-size sta", ""),
                                     ("patctl list --limit sta", "")):
                terminal.type(words + "\t")
                terminal.read_until(f"<{words}{completed}>")
        finally:
            shell.kill()
            shell.wait()


def test_bash_takes_the_script_without_a_warning() -> None:
    script = run("completion", "bash").stdout
    command = ["shellcheck", "--shell", "bash", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60)
    assert done.stdout == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_zsh_has_the_options_of_each_command(command: str) -> None:
    script = run("completion", "zsh").stdout
    (own,) = re.findall(rf"^ +{command}\) _arguments(.*?) ;;$", script, re.MULTILINE | re.DOTALL)
    (all_take,) = re.findall(r"globals=\((.*?)\n    \)", script, re.DOTALL)
    text = own + (all_take if "globals" in own else "")
    assert set(re.findall(r"'\*?(--[a-z-]+)", text)) == options_in_help(command)


def test_zsh_takes_the_script(tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("there is no zsh")
    file = tmp_path / "_patctl"
    file.write_text(run("completion", "zsh").stdout)
    done = subprocess.run(["zsh", "-fn", file], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_other_shells_are_refused() -> None:
    assert "SHELL" in subprocess.run([PATCTL, "completion", "csh"], capture_output=True, text=True).stderr
    assert run("completion").returncode == USAGE
