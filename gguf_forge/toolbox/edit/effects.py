"""What an edit does to the programs that load the file: broken chat templates, and keys that they cannot do without."""

from __future__ import annotations

from gguf_forge.errors import InputError, printable
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tokenizer.chat_template import KEY as CHAT_TEMPLATE
from gguf_forge.tokenizer.template_check import fault_of, template_problems, templates_in
from gguf_forge.wording import log_of

log = log_of(__name__)

# llama.cpp does not load a file without these. Source: `load_hparams` in llama-model.cpp, and llama-vocab.cpp.
_NEEDED = ("tokenizer.ggml.model", "tokenizer.ggml.tokens")
_NEEDED_OF_ARCHITECTURE = ("context_length", "embedding_length", "block_count")
_MERGES = "tokenizer.ggml.merges"


def check_effects(before: Metadata, after: Metadata, *, force: bool) -> None:
    """Warns of keys that are missed, and of new chat templates that do not suit the vocabulary.

    Args:
        before, after: The keys of the file, and those of the edited one.
        force: A template that cannot be parsed is a warning, too, and no error.

    Raises:
        InputError: a new template cannot be parsed.
    """
    for key in _missed(before, after):
        log.warning("llama.cpp does not load a file without %s", key)
    old, new = templates_in(before), templates_in(after)
    changed = {name: text for name, text in new.items() if old.get(name) != text}
    for text in changed.values():
        fault = fault_of(text)
        if fault is not None and not force:
            hint = "fix the template, or add --force to write it as it is"
            raise InputError(f"the chat template {fault}", hint=hint)
    others = {key: value for key, value in after.items() if not key.startswith(CHAT_TEMPLATE)}
    names = (CHAT_TEMPLATE if name == "default" else f"{CHAT_TEMPLATE}.{name}" for name in changed)
    for problem in template_problems(others | {key: after[key] for key in names}):
        log.warning("%s", problem)


def _missed(before: Metadata, after: Metadata) -> list[str]:
    """The keys that llama.cpp needs and that are gone, or are called otherwise now."""
    architecture, vocabulary = before.get("general.architecture"), before.get("tokenizer.ggml.model")
    of_architecture = (f"{architecture.data}.{name}" for name in _NEEDED_OF_ARCHITECTURE) if architecture else ()
    merges = (_MERGES,) if vocabulary is not None and vocabulary.data == "gpt2" else ()
    return [printable(key) for key in (*_NEEDED, *merges, *of_architecture) if key in before and key not in after]
