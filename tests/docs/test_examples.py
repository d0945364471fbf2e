"""Every command line that help and pages show is run, in a folder with the files that it names."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from checkpoints import TINY, tiny_llama
from imatrices import write_for_model
from synthetic import write_checkpoint

import gguf_forge
from gguf_forge.cli import main
from gguf_forge.cli.app import COMMANDS

ROOT = Path(__file__).parents[2]
PACKAGE = Path(gguf_forge.__file__).parent  # the one that is tested, with its kernels, wherever it is installed
GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").glob("**/*.md")) - set(GUIDE))]
# The files that a reader of a page of the guide has, besides models: other programs made them, or the page says so.
GIVEN = {
    "fine-tunes.md": ("model.gguf", "chat_template.jinja"),
    "importance.md": ("imatrix.gguf",),
    "publishing.md": ("imatrix.gguf",),
    "quantize-a-gguf.md": ("Qwen3-0.6B-BF16.gguf", "Qwen3-0.6B-Q8_0.gguf"),
    "scripting.md": ("model.gguf",),
    "trouble.md": ("model.gguf", "model-Q4_K_M.gguf"),
}
# These measure, and take long: tests/cli/test_bench.py runs them with little work.
MEASURING = re.compile("gguf-forge bench")
# A line that stands for another one with names of the reader's own.
WITH_PLACEHOLDERS = re.compile(r"\b(NAME|MODEL|FOLDER|FILE|OUT|TYPE|SOURCE|KEY|N)\b|\.\.\.|<[a-z]")
# What has to be done before a line, and the exit codes that are not 0: files that differ.
BEFORE = {
    "gguf-forge job finish plan.json": "gguf-forge job work plan.json --task 0",
    "gguf-forge verify model.gguf --check-sums": "gguf-forge verify model.gguf --write-sums model.gguf.sums",
}
# The output of a line, which the world has under the same name for others.
MADE = {
    "gguf-forge merge": "model.gguf",
    "gguf-forge quantize model-BF16.gguf model-Q4_K_M.gguf": "model-Q4_K_M.gguf",
}
DIFFERENT = ("gguf-forge compare",)
MODELS = ("Qwen3-0.6B", "Qwen3-8B", "Qwen3-235B-A22B", "DeepSeek-V3")


def lines_of_help() -> Iterator[str]:
    for command in COMMANDS:
        tree = ast.parse((ROOT / "gguf_forge" / "cli" / f"{command}.py").read_text())
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            yield from re.findall(r"^- `(gguf-forge [^`]+)`", ast.get_docstring(function) or "", re.MULTILINE)


def lines_of_page(page: Path) -> Iterator[str]:
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL):
        if block.startswith("#!"):  # a script is run as a whole, by a test of its own
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = re.sub(r"\s+#.*", "", line).strip()
            if words.startswith("gguf-forge "):
                yield words


LINES = sorted(
    {
        line
        for line in (*lines_of_help(), *(line for page in PAGES for line in lines_of_page(page)))
        if not MEASURING.match(line)
    }
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files and folders that the lines name."""
    folder = tmp_path_factory.mktemp("world")
    made = tiny_llama(folder, TINY)
    for name in MODELS:
        shutil.copytree(made, folder / name)
    write_checkpoint(ROOT / "tests" / "families" / "qwen3", folder / "my-finetune")
    write_checkpoint(ROOT / "tests" / "families" / "gemma3-vision", folder / "gemma-3-4b-it")
    for name in (*MODELS, "my-finetune", "gemma-3-4b-it"):
        # The files get the names of real models, though these have fewer weights than their names say.
        (folder / name / "README.md").write_text(f"---\nbasename: {name}\nsize_label: ''\nfinetune: ''\n---\n")
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    for place in (folder, folder / MODELS[0]):
        (place / "chat_template.jinja").write_text(template)
    base = folder / "model-BF16.gguf"
    gguf_forge.convert(folder / MODELS[0], base, types="BF16")
    write_for_model(base)
    gguf_forge.convert(folder / MODELS[0], folder / "model-{FTYPE}.gguf", types=["Q4_K_M", "Q8_0"])
    for kind in ("BF16", "Q8_0"):
        gguf_forge.convert(folder / MODELS[0], folder, types=kind)
    matrix = gguf_forge.Options(imatrix=gguf_forge.read_imatrix(folder / "imatrix.gguf"))
    gguf_forge.quantize_gguf(base, folder / "model-IQ3_S.gguf", types="IQ3_S", options=matrix)
    with gguf_forge.open_gguf(base) as gguf:
        tokens = ["<|im_end|>", "<|tool_call>", *gguf.metadata["tokenizer.ggml.tokens"][2:]]
    gguf_forge.edit_gguf(
        base,
        folder / "model.gguf",
        set={"tokenizer.ggml.tokens": tokens, "general.url": "https://example.com"},
        chat_template=template,
    )
    for name, kind in {"a": "Q4_K_M", "ours": "Q4_K_M", "b": "Q8_0", "theirs": "Q8_0"}.items():
        shutil.copy(folder / f"model-{kind}.gguf", folder / f"{name}.gguf")
    gguf_forge.edit_gguf(base, folder / "both.gguf", rename_tensor={"^blk.0": "v.blk.0", "^blk.1": "model.blk.1"})
    gguf_forge.split_gguf(folder / "model.gguf", folder / "model", max_tensors=7)
    gguf_forge.split_gguf(base, folder / "model-BF16", max_tensors=6)
    data = (folder / "model.gguf").read_bytes()
    (folder / "model.gguf.part1of2").write_bytes(data[:100_000])
    (folder / "model.gguf.part2of2").write_bytes(data[100_000:])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert (
            main(["job", "plan", "DeepSeek-V3", "-t", "Q4_K_M", "--tasks", "1", "--save-plan", "plan.json", "-q"]) == 0
        )
    return folder


def run(line: str) -> int:
    """Runs a line in this process; in one of its own where it bounds memory, of which tests hold a lot."""
    if "--max-memory" in line:
        command = [sys.executable, "-m", "gguf_forge", *shlex.split(line)[1:]]
        return subprocess.run(command, check=False).returncode
    return main(shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "0"))[1:])


@pytest.mark.parametrize("line", LINES)
def test_the_line(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], line: str
) -> None:
    if "--check-tokens" in line:
        pytest.importorskip("xllamacpp", reason="there is no xllamacpp for this platform", exc_type=ImportError)
    if WITH_PLACEHOLDERS.search(line):
        pytest.fail("a line that cannot be typed: put real names into it")
    for path in world.iterdir():
        if path.is_dir():
            (tmp_path / path.name).symlink_to(path)
        elif path.name == "plan.json" or _is_named(path.name, line):
            shutil.copy(path, tmp_path)
    if "parts/" in line:
        (tmp_path / "parts").mkdir()
    if "job plan" in line or "--save-plan" in line:
        (tmp_path / "plan.json").unlink()
    for beginning, name in MADE.items():
        if line.startswith(beginning):
            (tmp_path / name).unlink()
    monkeypatch.chdir(tmp_path)
    for beginning, first in BEFORE.items():
        if line.startswith(beginning):
            assert run(first) == 0
    _assert_it_runs(line, capfd)


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_the_commands_of_a_guide_follow_each_other(
    world: Path, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each command finds the files that those before it made, under the names that they gave them."""
    for path in world.iterdir():
        if path.is_dir():
            shutil.copytree(path, tmp_path / path.name)
        elif path.name in GIVEN.get(page.name, ()):
            shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    for line in lines_of_page(page):
        if "--check-tokens" not in line or find_spec("xllamacpp"):
            _assert_it_runs(line, capfd)


def _assert_it_runs(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    own, *piped = re.split(r" (?:\||&&) ", line, maxsplit=1)
    code = run(own)
    out, err = capfd.readouterr()
    assert code in ((0, 7) if line.startswith(DIFFERENT) else (0,)), line + out + err
    if "--json" in own:
        json.loads(out)
    for next_command in piped:
        if next_command.startswith("jq ") and shutil.which("jq"):
            found = subprocess.run(shlex.split(next_command), input=out, text=True, capture_output=True)
            assert found.returncode == 0 and found.stdout, found.stderr


SCRIPTING = ROOT / "docs" / "guide" / "scripting.md"


def blocks_of(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SCRIPTING.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
def test_the_nightly_script_goes_on_after_a_failed_model(world: Path, tmp_path: Path) -> None:
    [script] = [block for block in blocks_of("sh") if block.startswith("#!/bin/sh")]
    checkpoints = tmp_path / "a folder" / "checkpoints"
    shutil.copytree(world / MODELS[0], checkpoints / "good one")
    (checkpoints / "broken one").mkdir(parents=True)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "gguf-forge").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gguf_forge "$@"\n')
    (tools / "gguf-forge").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(PACKAGE.parent)}

    def night(name: str) -> subprocess.CompletedProcess[str]:
        command = ["/bin/sh", "-c", script]
        run = subprocess.run(command, cwd=checkpoints.parent, env=environment, text=True, capture_output=True)
        assert name in run.stderr
        return run

    assert night("broken one: ").returncode == 1
    made = {file.name for file in (checkpoints.parent / "out").glob("*.gguf")}
    assert made == {"good one-Q4_K_M.gguf", "good one-Q8_0.gguf"}
    file = checkpoints.parent / "out" / "good one-Q8_0.gguf"
    data = bytearray(file.read_bytes())
    with gguf_forge.open_gguf(file) as gguf:
        data[gguf["token_embd.weight"].offset + 100 * 34 + 7] ^= 1  # in a row that --resume does not look at
    file.write_bytes(data)
    assert f"out/{file.name}: is not verified" in night("broken one: ").stderr
    (checkpoints / "good one" / "config.json").touch()
    assert "good one: an older file is in the way" in night("broken one: ").stderr


def test_the_handler_of_the_guide_lets_a_stopped_script_clean_up(world: Path, tmp_path: Path) -> None:
    [handler] = [block for block in blocks_of("python") if "signal.SIGTERM" in block]
    stopped = """
import os
import gguf_forge
class Stop(gguf_forge.Observer):
    def advance(self, n_bytes):
        os.kill(os.getpid(), signal.SIGTERM)
gguf_forge.convert(sys.argv[1], "out.gguf", types="Q8_0", observer=Stop())
"""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    source = str(world / MODELS[0])
    left: dict[str, int] = {}
    for name, lines in {"with": handler, "without": "import signal, sys"}.items():
        (tmp_path / name).mkdir()
        command = [sys.executable, "-c", lines + stopped, source]
        run = subprocess.run(command, cwd=tmp_path / name, env=environment, check=False)
        assert run.returncode == (128 + signal.SIGTERM if name == "with" else -signal.SIGTERM)
        left[name] = len(list((tmp_path / name).glob(".gguf-forge-*.partial")))
    assert left == {"with": 0, "without": 1}


def test_the_python_of_the_jobs_runs(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = [block for block in blocks_of("python") if "plan_work" in block]
    (tmp_path / "DeepSeek-V3").symlink_to(world / "DeepSeek-V3")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "scripting.md", "exec"), {})
    gguf_forge.convert("DeepSeek-V3", "whole.gguf", types="Q4_K_M")
    assert Path("deepseek.gguf").read_bytes() == Path("whole.gguf").read_bytes()


def _is_named(name: str, line: str) -> bool:
    """Whether a line names a file, or another part of its split."""
    return re.sub(r"(-\d{5}-of-\d{5}|\.part\d)", "", name) in re.sub(r"(-\d{5}-of-\d{5}|\.part\d)", "", line)
