"""`convert`: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from checkpoints import tiny_llama
from command_line import Forge, listing
from gguf import GGUFReader


def test_writes_the_file_and_closes_with_a_table(forge: Forge, model: Path) -> None:
    ran = forge("convert", model)
    assert ran.code == 0
    assert listing(Path()) == ["Tiny-1.2M-Q4_K_M.gguf"]
    for what in ("size", "bits per weight", "time", "speed", "tensors", "Q4_K", "Q6_K", "F32"):
        assert what in ran.out
    assert "writing" in ran.err
    assert "\x1b" not in ran.out + ran.err


def test_json_is_all_of_standard_output(forge: Forge, model: Path) -> None:
    ran = forge("convert", model, "--json", "-o", "out.gguf", "-t", "q8_0")
    assert ran.file["path"] == "out.gguf"
    assert ran.file["size"] == Path("out.gguf").stat().st_size
    assert ran.file["seconds"] >= 0
    assert len(ran.file["tensors"]) == 21


def test_quiet_says_nothing(forge: Forge, model: Path) -> None:
    ran = forge("convert", model, "--quiet", "-o", "out.gguf")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert listing(Path()) == ["out.gguf"]


def test_verbose_says_more(forge: Forge, model: Path) -> None:
    ran = forge("convert", model, "--verbose", "-o", "out.gguf", "--threads", "1", "--backend", "portable")
    assert "note: kernels: portable (1 lanes); threads: 1" in ran.err
    assert "a llama model, 21 tensors" in ran.err


def test_several_types(forge: Forge, model: Path) -> None:
    assert forge("convert", model, "-t", "q8_0,bf16", "--outtype", "Q4_0", "-o", "tiny-{ftype}.gguf").code == 0
    assert listing(Path()) == ["tiny-bf16.gguf", "tiny-q4_0.gguf", "tiny-q8_0.gguf"]


def test_several_types_are_announced_and_reported(forge: Forge, model: Path) -> None:
    ran = forge("convert", model, "-t", "q8_0,Q4_0", "-o", "tiny-{ftype}.gguf", "--json")
    assert [file["type"] for file in ran.json["files"]] == ["Q8_0", "Q4_0"]
    assert [line.split(":")[0] for line in ran.err.splitlines()] == ["tiny-q8_0.gguf", "tiny-q4_0.gguf"]


def test_metadata_options(forge: Forge, model: Path) -> None:
    Path("card.json").write_text('{"general.author": "Somebody"}')
    options = ("--model-name", "Other", "--metadata", "card.json", "--override-kv", "llama.context_length=int:64")
    assert forge("convert", model, "-o", "out.gguf", *options).code == 0
    fields = GGUFReader("out.gguf").fields
    assert fields["general.name"].contents() == "Other"
    assert fields["general.author"].contents() == "Somebody"
    assert fields["llama.context_length"].contents() == 64


def test_overwrite(forge: Forge, model: Path) -> None:
    out = Path("out.gguf")
    out.write_bytes(b"old")
    ran = forge("convert", model, "-o", out)
    assert ran.code == 8
    assert "out.gguf: already exists" in ran.err
    assert out.read_bytes() == b"old"
    assert forge("convert", model, "-o", out, "--overwrite").code == 0
    assert out.read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize("link", ["same", "symbolic", "hard"])
def test_an_input_is_never_replaced(forge: Forge, tmp_path: Path, link: str) -> None:
    folder = tiny_llama(tmp_path)
    weights = folder / "model.safetensors"
    before = weights.read_bytes()
    out = weights if link == "same" else Path("out.gguf")
    if link == "symbolic":
        out.symlink_to(weights)
    elif link == "hard":
        os.link(weights, out)
    ran = forge("convert", folder, "-o", out, "--overwrite")
    assert ran.code == 8
    assert "is one of the inputs" in ran.err
    assert weights.read_bytes() == before


def test_a_full_disk_is_said_before_work(forge: Forge, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = forge("plan", model, "--json").file["size"]
    # room for each file, not for both
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed + 1))
    ran = forge("convert", model, "-t", "Q4_K_M,Q4_K_S")
    assert ran.code == 5
    assert f"the disk has {needed + 1:,} free" in ran.err
    assert "hint: free some room" in ran.err
    assert listing(Path()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{model}", "--nonsense"], 2, "No such option: --nonsense"),
        (["{model}", "--nonsense"], 2, "hint: see gguf-forge convert --help"),
        (["{model}", "--chat-template", "x"], 2, "hint: put chat_template.jinja into the model's folder"),
        (["{model}", "--quantize", "Q4_K_M"], 2, "hint: -t names the file type"),
        (["{model}", "--ctx", "4096"], 2, "`gguf-forge types MODEL --context 8192`"),
        (["{model}", "--context", "4096"], 2, "hint: it is an option of `gguf-forge types`"),
        (["{model}", "--license", "mit"], 2, "hint: set it with --override-kv general.license=str:mit"),
        (["{model}", "--summary"], 2, "hint: it is an option of `gguf-forge plan`"),
        (["{model}", "Q5_K_M"], 2, "hint: an option names the file type: -t Q5_K_M"),
        (["{model}", "q4_0", "Q8_0"], 2, "hint: an option names the file type: -t q4_0,Q8_0"),
        (["{model}", "out.gguf"], 2, "hint: an option names the output: -o out.gguf"),
        (["{model}", "and", "more"], 2, "hint: a name with spaces needs quotes, and an option needs its name"),
        ([], 2, "SOURCE"),
        (["{model}", "-t", "q9"], 2, "unknown file type 'q9'"),
        (["{model}", "-t", "F16", "--pure"], 2, "--pure: no effect on a file of type F16"),
        (["{model}", "--threads", "0"], 2, "--threads"),
        (["{model}", "--backend", "vax"], 2, "cannot run a backend 'vax'"),
        (["{model}", "--tensor-type", "attn_v"], 2, "is not PATTERN=TYPE"),
        (["{model}", "--override-kv", "a=int:b"], 2, "'b' is not a valid int"),
        (["{model}", "--prune-layers", "x"], 2, "is not a list of layers"),
        (["{model}", "-t", "Q8_0,F16", "-o", "x.gguf"], 2, "2 files, but only one output name: x.gguf"),
        (["{model}", "-t", "Q2_K_S"], 2, "importance matrix"),
        (["nowhere"], 4, "nowhere: there is no such folder"),
        (["https://hub.example/a/b"], 4, "error: https://hub.example/a/b is an address"),
        (["https://hub.example/a/b/tree/main"], 4, "`hf download a/b --local-dir FOLDER`"),
        (["{model}", "-o", "m-{name}-{FTYPE}.gguf"], 2, "{name} is no placeholder"),
        (["{model}", "-t", "IQ2_XS"], 2, "IQ2_XS needs an importance matrix"),
        (["."], 4, "config.json: the file is missing"),
        (["{model}", "--tensor-type-file", "none.txt"], 4, "none.txt"),
        (["{model}", "-o", "/dev/null/x.gguf"], 5, "/dev/null: Not a directory"),
    ],
)
def test_errors(forge: Forge, model: Path, arguments: list[str], code: int, message: str) -> None:
    given = [argument.format(model=model) if argument == "{model}" else argument for argument in arguments]
    ran = forge("convert", *given)
    assert ran.code == code
    assert ran.err.startswith("error: ")
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""
    assert listing(Path()) == []
    error = forge("convert", *given, "--json").json["error"]
    assert error["code"] == code
    assert error["message"]


def test_a_broken_checkpoint_names_its_file(forge: Forge, tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    os.truncate(folder / "model.safetensors", 5000)
    ran = forge("convert", folder, "--json")
    assert ran.code == 4
    assert ran.json["error"]["kind"] == "InputError"
    assert ran.json["error"]["file"] == str(folder / "model.safetensors")


def test_an_unknown_model_is_unsupported(forge: Forge, tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    config = folder / "config.json"
    config.write_text(config.read_text().replace("LlamaForCausalLM", "VaxForCausalLM"))
    ran = forge("convert", folder)
    assert ran.code == 3
    assert "VaxForCausalLM" in ran.err


def test_a_bug_is_reported_as_one(forge: Forge, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("gguf_forge.planning.from_checkpoint.plan_model", fail)
    ran = forge("convert", model)
    assert ran.code == 1
    assert "bug in gguf-forge: ZeroDivisionError: oh" in ran.err
    assert "report it" in ran.err
    assert "Traceback" not in ran.err
    assert "Traceback" in forge("convert", model, "--verbose").err
    assert forge("convert", model, "--json").json["error"]["kind"] == "InternalError"


def test_threads_come_from_the_environment(forge: Forge, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGUF_FORGE_THREADS", "3")
    assert "threads: 3" in forge("convert", model, "--verbose").err


def test_profile(forge: Forge, model: Path) -> None:
    ran = forge("convert", model, "-o", "out.gguf", "--profile", "--threads", "1")
    assert "worker 1" not in ran.out
    table = [line.split() for line in ran.err.splitlines()]
    assert ["seconds", "plan"] in [line[:2] for line in table]
    assert {"main", "worker", "processor"} <= {line[0] for line in table if line}
    assert "plan: headers, tokenizer, types and offsets; " in ran.err.splitlines()[-1]


def test_profile_for_scripts(forge: Forge, model: Path) -> None:
    ran = forge("convert", model, "-o", "out.gguf", "--profile", "--json", "--threads", "2")
    main, *workers = ran.json["profile"]
    assert main["thread"] == "main"
    assert len(workers) >= 2
    assert set(main["seconds"]) == set(main["busy"])


@pytest.mark.parametrize("kind", ["F16", "Q4_K_M"])
def test_splits(forge: Forge, model: Path, kind: str) -> None:
    options = ("-o", "m.gguf", "-t", kind, "--split-max-tensors", "8", "--no-tensor-first-split")
    names = [f"m-0000{n}-of-00004.gguf" for n in (1, 2, 3, 4)]
    counts = [0, 8, 8, 5]
    planned = [line.split() for line in forge("plan", model, *options).out.splitlines() if line.startswith("m-")]
    assert [words[:2] for words in planned[1:]] == [[name, str(n)] for name, n in zip(names, counts, strict=True)]
    ran = forge("convert", model, *options, "--json")
    assert listing(Path()) == names
    assert ran.file["path"] == names[0]
    assert ran.file["parts"] == [
        {"path": name, "size": Path(name).stat().st_size, "tensors": n} for name, n in zip(names, counts, strict=True)
    ]
    refused = forge("convert", model, *options)
    assert refused.code == 8
    assert names[0] in refused.err


def test_the_summary_lists_the_parts(forge: Forge, model: Path) -> None:
    out = forge("convert", model, "-o", "m.gguf", "--split-max-size", "500K").out
    assert all(name in out for name in listing(Path()))
    assert len(listing(Path())) > 1


@pytest.mark.parametrize(
    "options", [("--split-max-size", "big"), ("--split-max-size", "0"), ("--split-max-tensors", "0")]
)
def test_splits_that_make_no_sense(forge: Forge, model: Path, options: tuple[str, str]) -> None:
    ran = forge("convert", model, *options)
    assert ran.code == 2
    assert listing(Path()) == []


def test_max_memory(forge: Forge, model: Path) -> None:
    refused = forge("convert", model, "-o", "out.gguf", "--max-memory", "5M")
    assert refused.code == 2
    assert "and 5,242,880 are allowed" in refused.err
    assert "writing" not in refused.err
    assert listing(Path()) == []
    assert forge("convert", model, "-o", "out.gguf", "--max-memory", "1G").code == 0
    assert "--max-memory: invalid size 'much'" in forge("convert", model, "--max-memory", "much").err


def test_a_dry_run_over_what_is_complete(forge: Forge, model: Path) -> None:
    assert forge("convert", model, "-o", "m.gguf").code == 0
    run = forge("convert", model, "-o", "m.gguf", "--dry-run", "--resume")
    assert (run.code, run.err) == (0, "")
    assert "would be refused: m.gguf: already exists" in forge("convert", model, "-o", "m.gguf", "--dry-run").err


def test_options_of_llama_cpp_that_nothing_needs_here_are_accepted(forge: Forge, model: Path) -> None:
    plain = forge("convert", model, "--json", "-o", "plain.gguf")
    as_there = forge("convert", model, "--json", "-o", "as-there.gguf", "--no-lazy", "--use-temp-file")
    assert (plain.code, as_there.code) == (0, 0)
    assert Path("plain.gguf").read_bytes() == Path("as-there.gguf").read_bytes()


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--remote", "`hf download`"),
        ("--out", "-o or --outfile names the output"),
        ("--trust-remote-code", "no code of a model is ever run"),
        ("--no-such-thing", "see gguf-forge convert --help"),
    ],
)
def test_other_options_of_llama_cpp_are_answered_with_what_there_is_instead(
    forge: Forge, model: Path, option: str, hint: str
) -> None:
    ran = forge("convert", model, option)
    assert ran.code == 2
    assert hint in ran.err


def test_the_supported_models_are_listed_as_llama_cpp_lists_them(forge: Forge) -> None:
    ran = forge("convert", "--print-supported-models")
    assert (ran.code, ran.err) == (0, "")
    first, *lines = ran.out.splitlines()
    assert (first, lines[0]) == ("Supported models:", "TEXT models:")
    text, mmproj = (part.splitlines() for part in "\n".join(lines[1:]).split("\nMMPROJ models:\n"))
    for names, known in ((text, "Qwen3ForCausalLM"), (mmproj, "Gemma3ForConditionalGeneration")):
        assert names == sorted(names) and f"  - {known}" in names
        assert all(re.fullmatch(r"  - [\w.]+", name) and not name.endswith("params.json") for name in names)


@pytest.mark.parametrize(
    ("out", "types"), [("new/", "Q8_0"), ("new/inside/", "Q8_0"), ("new", "Q8_0,Q4_0"), ("new/{ftype}.d/", "Q8_0")]
)
def test_a_folder_is_made_where_the_output_names_one(forge: Forge, model: Path, out: str, types: str) -> None:
    assert forge("plan", model, "-o", out, "-t", types).err == ""
    assert listing(Path()) == []
    assert forge("convert", model, "-o", out, "-t", types).code == 0
    assert [path.name for path in sorted(Path(out).iterdir())] == [
        f"Tiny-1.2M-{name}.gguf" for name in sorted(types.split(","))
    ]


def test_a_folder_that_was_made_in_vain_goes(forge: Forge, model: Path) -> None:
    assert forge("convert", model, "-o", "new/inside/", "--max-memory", "5M").code == 2
    assert listing(Path()) == []


def test_tokens_are_not_compared_without_llama_cpp(forge: Forge, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said before the work, which would be in vain."""
    monkeypatch.setattr("gguf_forge.toolbox.tokens.check.find_spec", lambda name: None)
    ran = forge("convert", model, "-o", "out.gguf", "--check-tokens")
    assert (ran.code, "pip install '.[tokens]'" in ran.err) == (3, True)
    assert listing(Path()) == []


def test_tokens_of_a_gguf_file_are_not_compared(forge: Forge, model: Path) -> None:
    assert forge("convert", model, "-o", "base.gguf", "-t", "F16").code == 0
    ran = forge("convert", "base.gguf", "-o", "out.gguf", "-t", "Q8_0", "--check-tokens")
    assert (ran.code, "those of a model folder" in ran.err) == (2, True)
    assert listing(Path()) == ["base.gguf"]


@pytest.mark.parametrize("option", ["-t", "--parts"])
def test_an_empty_variable_of_a_shell_is_no_list(forge: Forge, model: Path, option: str) -> None:
    run = forge("convert", model, option, "")
    assert run.code == 2 and "a list of names is empty" in run.err
    assert "leave the option out" in run.err


def test_a_name_with_spaces_is_told_to_need_quotes(forge: Forge) -> None:
    Path("My Own Model").mkdir()
    for arguments in (["My", "Own", "Model"], ["-t", "Q8_0", "My", "Own", "Model", "--json"]):
        ran = forge("convert", *arguments)
        assert (ran.code, "hint: a name with spaces needs quotes: 'My Own Model'" in ran.err) == (2, True)


def test_commands_that_take_one_file_say_so(forge: Forge) -> None:
    Path("b.gguf").touch()
    for command in ("verify", "types"):
        ran = forge(command, "a.gguf", "b.gguf")
        assert (ran.code, f"`gguf-forge {command}` takes one at a time: run it again for b.gguf" in ran.err) == (
            2,
            True,
        )


def test_a_name_without_a_suffix_is_warned_of(forge: Forge, model: Path) -> None:
    ran = forge("convert", model, "-t", "Q8_0", "-o", "outdir", "--vocab-only")
    assert "outdir: the output is a file whose name does not end in .gguf; -o outdir/ makes a folder" in ran.err
    assert "warning" not in forge("convert", model, "-t", "Q8_0", "-o", "folder/", "--vocab-only").err
    assert Path("outdir").is_file() and Path("folder").is_dir()
