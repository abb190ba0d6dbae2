"""The command line itself."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from basics import PATCTL, VERSION
from conftest import FAULT, NO, USAGE, YES, Patctl

COMMANDS = ("init", "issue", "import", "export", "revoke", "restore-access", "show", "list", "check", "stats", "verify",
            "backup", "gc", "convert", "rotate", "help", "completion")


def run(*arguments: str, input: str = "", cwd: Path | None = None,
        **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PAT_")}
    return subprocess.run([PATCTL, *arguments], input=input, capture_output=True, text=True, cwd=cwd,
                          env={**clean, **environment})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == YES
    assert f"patctl {command}" in done.stdout.split("Examples:")[1]
    assert run("help", command).stdout == done.stdout


@pytest.mark.parametrize("command", COMMANDS[:-2])
def test_the_help_of_every_command_has_the_options_that_all_take(command: str) -> None:
    for option in ("--store DIR", "--pepper-file FILE", "--map-size SIZE", "--json"):
        assert len(re.findall(rf"^ +{option}", run("help", command).stdout, re.MULTILINE)) == 1


def test_the_help_shows_values_as_they_are_declared() -> None:
    listed, converted = run("help", "list").stdout, run("help", "convert").stdout
    assert re.search(r"^ +--limit N +at most N tokens *$", listed, re.MULTILINE)
    assert re.search(r"^ +--status \{ok,expired,revoked,not_yet_valid\} *$", listed, re.MULTILINE)
    assert re.search(r"^ +--format N\W", converted, re.MULTILINE)
    assert not re.search("TEXT:|UINT| TEXT REQUIRED", listed + converted + run("help", "import").stdout)


def test_help_without_a_command_is_that_of_all() -> None:
    assert run("help").stdout == run("--help").stdout
    assert "Global options" not in run("help").stdout


@pytest.mark.parametrize("before", [(), ("help",), ("--store", "/none")])
def test_an_unknown_command_is_named_with_the_one_that_was_meant(before: tuple[str, ...]) -> None:
    for name, meant in (("lsit", "list"), ("revok", "revoke"), ("accept-snapshott", "accept-snapshot"), ("delete", None)):
        done = run(*before, name)
        assert (done.returncode, done.stdout) == (USAGE, "")
        assert (f'"{name}"' in done.stderr) == (len(name) < 16)
        assert ("did you mean" in done.stderr) == (meant is not None)
        assert meant is None or f'did you mean "{meant}"?' in done.stderr


def test_a_token_of_another_system_in_the_place_of_a_command_is_not_repeated() -> None:
    for arguments in (("a-token-of-another-system",), ("help", "a-token-of-another-system")):
        done = run(*arguments)
        assert done.returncode == USAGE
        assert "a-token-of" not in done.stdout + done.stderr


def test_an_unknown_option_is_named_without_a_command_too() -> None:
    assert "--stoer" in run("--stoer", "/none").stderr
    assert "no command was given" in run().stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("issue --sujbect x", "unknown option --sujbect:"),
        ("issue x --subject", "unexpected argument"),
        ("--json=foo", "--json: takes no value:"),
        ("--json=foo list", "--json: takes no value:"),
        ("--store", "--store: the value is missing:"),
        ("list --limit", "--limit: the value is missing:"),
        ("--limit 5 list", '--limit has to be behind "list":'),
        ("--limit 5", "unknown option --limit:"),
        ("list --subject a --subject b", "--subject: given more than once:"),
        ("show a -- -x", "unexpected argument"),
    ],
)
def test_what_is_wrong_is_named_before_what_it_leads_to(command: str, words: str) -> None:
    done = run(*command.split())
    assert done.returncode == USAGE
    assert words in done.stderr


@pytest.mark.parametrize("value", ["false", "true", "", "{}", "0"])
@pytest.mark.parametrize("command", ["revoke", "restore-access", "show"])
def test_a_flag_takes_no_value(patctl: Patctl, command: str, value: str) -> None:
    assert "--token-stdin: takes no value" in patctl.run(command, f"--token-stdin={value}", status=USAGE).stderr


@pytest.mark.parametrize("next", ["--no-expiry", "--", "--name", "--name=x", "--json", "-h", "--help"])
def test_an_option_is_no_value_of_the_one_before(patctl: Patctl, next: str) -> None:
    for arguments in (("--subject", next), ("--subject", "x", "--scope", next, "y")):
        done = patctl.run("issue", *arguments, status=USAGE)
        assert f"{arguments[-2] if next == arguments[-1] else '--scope'}: the value is missing" in done.stderr
        assert done.stdout == ""
    assert patctl.json("list") == []
    patctl.run("issue", f"--subject={next}", "--name", "--other")
    (token,) = patctl.json("list")
    assert (token["subject"], token["name"]) == (next, "--other")


@pytest.mark.parametrize("value", ["[[aabb]]", "[a]", "[]", "{}", "++", "list", "%%", "'a'", '"a"', "a,b", "--x=[[aa]]"])
def test_a_value_is_taken_as_it_is_written(patctl: Patctl, tmp_path: Path, value: str) -> None:
    for arguments in (("--subject", value, "--name", value), (f"--subject={value}", f"--name={value}")):
        patctl.run("issue", *arguments)
    assert {(token["subject"], token["name"]) for token in patctl.json("list")} == {(value, value)}
    assert len(patctl.json("list", "--subject", value)) == 2
    (tmp_path / value).write_text("")
    for arguments in (("--", value), (value,))[:1 if value.startswith("-") else 2]:
        assert run("import", "--store", str(patctl.store), *arguments, cwd=tmp_path).returncode == YES


def test_the_name_of_a_command_is_an_id_behind_a_command(patctl: Patctl) -> None:
    patctl.load({"digest": "ab" * 32, "id": "list", "subject": "s", "issued_at": 1700000000})
    for command in ("show", "revoke", "restore-access", "rotate"):
        assert patctl.run(command, "list").stdout


def test_the_name_of_the_store_is_taken_as_it_is_written(tmp_path: Path) -> None:
    store = tmp_path / "[[aabb]]"
    owner = str(os.geteuid())
    assert run("init", "--owner", owner, PAT_STORE=store.name, cwd=tmp_path).returncode == YES
    assert run("list", "--store", store.name, cwd=tmp_path).returncode == YES
    assert store.is_dir()


@pytest.mark.parametrize("number", ["-1", "0", "99999999999999999999", "0b11", "0x3", "1'0", "1_0", "3 ", " 3", "+3",
                                    "3.0", "", "three"])
def test_a_number_is_written_in_decimal_digits(patctl: Patctl, number: str) -> None:
    for command, option in (("list", "--limit"), ("convert", "--format")):
        for arguments in ((option, number), (f"{option}={number}",)):
            assert f"{option}: " in patctl.run(command, *arguments, status=USAGE).stderr
    patctl.run("convert", "--format", "1")
    patctl.run("list", "--limit", "18446744073709551615")


def test_every_command_is_in_the_manual() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "patctl.md").read_text()
    for command in COMMANDS:
        assert f"\n## {command}\n" in manual


def test_the_version_is_told() -> None:
    assert run("--version").stdout == f"patctl {VERSION}\n"


@pytest.mark.parametrize(
    "arguments",
    [(), ("nothing",), ("list", "--nothing"), ("list", "--limit", "x"), ("revoke",), ("revoke", "1", "--subject", "2"),
     ("list", "--map-size", "1x"), ("list", "--map-size", "1k"), ("issue",)],
)
def test_wrong_usage_is_status_2(patctl: Patctl, arguments: tuple[str, ...]) -> None:
    assert patctl.run(*arguments, status=USAGE).stderr.startswith("patctl: ")


@pytest.mark.parametrize("id", ["plain", "-x", "--subject", "--help"])
def test_what_follows_two_dashes_is_an_argument(patctl: Patctl, tmp_path: Path, id: str) -> None:
    patctl.load({"digest": "ab" * 32, "id": id, "subject": "s", "issued_at": 1700000000})
    for command in ("revoke", "restore-access", "show", "rotate"):
        assert patctl.run(command, "--", id).stdout
        assert patctl.run("--json", command, "--", id).stdout
        assert f"see \"patctl {command} --help\"" in patctl.run(command, "--", id, "more", status=USAGE).stderr
        assert "Exactly 1 option" in patctl.run(command, "--", status=USAGE).stderr
    file = tmp_path / id
    patctl.run("import", "--", str(file), status=FAULT)
    file.write_text("")
    patctl.run("import", "--", str(file))
    patctl.run("backup", "--", str(tmp_path / "copy"))


def test_two_dashes_may_stand_before_a_name() -> None:
    assert run("help", "--", "issue").stdout == run("help", "issue").stdout
    assert run("completion", "--", "bash").stdout == run("completion", "bash").stdout
    assert 'the command has to be before "--":' in run("--", "help", "issue").stderr
    assert "did you mean" in run("--", "lsit").stderr and "no command was given" in run("--").stderr


@pytest.mark.parametrize("command", ["revoke", "restore-access", "show", "rotate"])
def test_a_token_is_named_in_one_way(command: str) -> None:
    text = run("help", command).stdout
    assert f"patctl {command} [OPTIONS] [ID]\n" in text
    ways = text.split("\nExactly one of ID and these:\n")[1].split("\n\n")[0]
    names = re.findall("^ +(--[a-z-]+)", ways, re.MULTILINE)
    assert names == (["--subject"] if command.startswith("re") else []) + ["--digest", "--token-stdin"]
    assert "\n\n\n" not in text
    assert "2 were given" in run(command, "x", "--token-stdin").stderr
    assert "--sujbect" in run(command, "--sujbect", "x").stderr


def test_without_a_store_it_says_how_to_name_one() -> None:
    done = run("list")
    assert done.returncode == USAGE
    assert "--store" in done.stderr and "PAT_STORE" in done.stderr


def test_a_store_that_is_not_there_is_status_3(tmp_path: Path) -> None:
    done = run("list", "--store", str(tmp_path / "none"))
    assert done.returncode == FAULT
    assert f'"{tmp_path}/none"' in done.stderr and "patctl init" in done.stderr


def test_the_store_comes_from_the_environment_or_from_either_side_of_the_command(patctl: Patctl) -> None:
    store = str(patctl.store)
    assert run("list", PAT_STORE=store).returncode == YES
    assert run("--store", store, "list").returncode == YES
    assert run("list", "--store", store, PAT_STORE="/nowhere").returncode == YES


@pytest.mark.parametrize("command", ["check", "revoke", "show --token-stdin"])
def test_a_token_among_the_arguments_is_refused_and_not_repeated(patctl: Patctl, command: str) -> None:
    token = patctl.issue()
    done = patctl.run(*command.split(), token, status=USAGE)
    assert token not in done.stdout + done.stderr
    assert patctl.verdict(token) == "ok"


@pytest.mark.parametrize(
    "command",
    ["show {}", "revoke {}", "rotate {}", "list --name {}",
     "revoke --token-stdin={}", "revoke --token {}", "check --address {}", "check -x{}",
     "check -- {}", "list --status {}", "list --limit {}", "--map-size {} list", "{}", "import {}"],
)
@pytest.mark.parametrize("prefix", ["ropat_", "shop_", "x", "A.long-prefix_of-32-characters.1"])
def test_a_token_is_refused_wherever_it_stands(patctl: Patctl, command: str, prefix: str) -> None:
    token = patctl.issue("--prefix", prefix)
    done = patctl.run(*command.format(token).split(), status=USAGE)
    assert token not in done.stdout + done.stderr
    assert "standard input only" in done.stderr


@pytest.mark.parametrize(
    "command",
    ["revoke --token-stdin={}", "check -x{}", "check {}", "revoke --token={}", "list --status {}", "list --sort {}",
     "list --limit {}", "completion {}", "--map-size {} list", "issue --subject a --expires-in {}",
     "issue --subject a --expires-at {}", "issue --subject a --cidr {}", "issue --subject a --claim {}",
     "gc --older-than {}", "check --address {}", "check --leeway {}", "rotate a --overlap {}", "show --digest {}",
     "convert --format {}", "list --expiring-within {}", "init --owner {}", "init --group {}", "{}", "help {}",
     "issue --subject --name={}", "issue --subject a --subject {}", "--{} list", "list {}"],
)
def test_a_token_of_another_system_is_not_repeated(patctl: Patctl, command: str) -> None:
    token = "a-token-of-another-system"
    done = patctl.run(*command.format(token).split(), status=USAGE)
    assert token not in done.stdout + done.stderr


@pytest.mark.parametrize("value", ["\x1b]0;x\x07", "\x9b31m", "a\rb\nc", "\u202ex"])
@pytest.mark.parametrize(
    "command",
    ["list --status", "list --limit", "--map-size", "issue --subject a --cidr", "issue --subject a --expires-in",
     "check --address", "stats --store", "issue --subject a --pepper-file", "import", "list --subject a --", "", "help",
     "init --owner", "completion"],
)
def test_no_error_has_what_a_terminal_acts_on(patctl: Patctl, command: str, value: str) -> None:
    for end in ((value,), (f"--{value}",), (f"--{value}=1",)):
        done = run("--store", str(patctl.store), *command.split(), *end)
        assert done.returncode != YES
        assert not set("\x1b\x07\x9b\r\u202e") & set(done.stderr)
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    ["issue --subject a --expires-at", "issue --subject a --not-before", "issue --subject", "list --subject", "show",
     "show --digest", "revoke", "restore-access", "revoke --subject", "check --address", "check --prefix",
     "rotate", "rotate --digest", "rotate --expires-in", "rotate x --prefix", "list --name", "list --scope",
     "check --scope", "issue --subject a --scope", "stats --pepper-file"],
)
def test_an_empty_value_is_not_taken_for_none(patctl: Patctl, command: str) -> None:
    patctl.run(*command.split(), "", status=USAGE)
    assert patctl.json("list") == []


def test_a_file_that_can_not_be_read_is_status_3(patctl: Patctl, tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        assert f'"{path}"' in patctl.run("import", str(path), status=FAULT).stderr
    patctl.run("issue", "--subject", "a", "--pepper-file", str(tmp_path / "none"), status=FAULT)


@pytest.mark.parametrize("input", ["", "\n", "a" * 600, "a" * 20 + "\n" + "b" * 20 + "\n"])
def test_standard_input_must_be_one_token(patctl: Patctl, input: str) -> None:
    patctl.run("revoke", "--token-stdin", input=input, status=USAGE)


def test_no_is_status_1(patctl: Patctl) -> None:
    patctl.run("show", "nobody", status=NO)
    patctl.run("check", input="x" * 44, status=NO)
