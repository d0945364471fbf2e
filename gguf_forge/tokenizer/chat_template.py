"""Chat templates. They are copied as text and never run.

Source: gguf-py's `SpecialVocab` (the files that may have a template) and `GGUFWriter.add_chat_template`; the
`_from_pretrained` of transformers' tokenizers (which file counts).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files as package_files
from typing import Any

from gguf_forge.gguf_file.values import Metadata, ValueType, array, string
from gguf_forge.tokenizer.checks import Place, as_list, as_mapping, as_text
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.wording import log_of

log = log_of(__name__)

KEY = "tokenizer.chat_template"


def chat_templates(files: TokenizerFiles) -> Metadata:
    """The templates of a folder, as transformers finds them, or as the reference does if `files` says so."""
    return _of_reference(files) if files.as_reference else _of_transformers(files)


def note_of_templates(files: TokenizerFiles, metadata: Metadata) -> None:
    """Says which template a file gets where the reference takes another one, or none."""
    template = metadata.get(KEY)
    if files.as_reference or template is None or _of_transformers(files).get(KEY) != template:
        return
    other = _of_reference(files).get(KEY)
    if other != template:
        place = "tokenizer_config.json" if (files.tokenizer_config or {}).get("chat_template") else None
        log.warning(
            "%s: the chat template is that of %s, as in transformers; llama.cpp's converter takes %s. To have that "
            "use --as-reference, and for any other one `gguf-forge edit --chat-template`",
            files.folder.path,
            _independent_name(files),
            "none" if other is None else f"another one, from {place}",
        )


def _independent_name(files: TokenizerFiles) -> str:
    if files.chat_template_jinja:
        return "chat_template.jinja"
    return "additional_chat_templates" if files.additional_chat_templates else "chat_template.json"


def _of_transformers(files: TokenizerFiles) -> Metadata:
    """Templates in files of their own count before those in tokenizer_config.json. An empty file is none."""
    if files.chat_template_jinja or files.additional_chat_templates:
        place = files.place("chat_template.jinja")
        return templates_of(_with_additional(files, files.chat_template_jinja), place)
    template = (files.tokenizer_config or {}).get("chat_template")
    if template is None:
        place = files.place("chat_template.json") / "chat_template"
        return templates_of((files.chat_template_json or {}).get("chat_template"), place)
    if isinstance(template, dict):
        template = [{"name": name, "template": text} for name, text in template.items()]
    return templates_of(template, files.place("tokenizer_config.json") / "chat_template")


def _of_reference(files: TokenizerFiles) -> Metadata:
    """tokenizer_config.json counts before other files, also with the template null, and without it there is none."""
    config = files.tokenizer_config
    if not config:
        return {}
    if "chat_template" in config:
        return templates_of(config["chat_template"], files.place("tokenizer_config.json") / "chat_template")
    if files.chat_template_jinja is not None:
        place = files.place("chat_template.jinja")
        return templates_of(_with_additional(files, files.chat_template_jinja), place)
    place = files.place("chat_template.json") / "chat_template"
    return templates_of((files.chat_template_json or {}).get("chat_template"), place)


def bundled_template(name: str) -> str:
    """A template that comes with the package, for models that have none."""
    return package_files(__package__).joinpath(f"chat_templates/{name}.jinja").read_text(encoding="utf-8")


def _with_additional(files: TokenizerFiles, template: str | None) -> str | list[Mapping[str, str]] | None:
    more = files.additional_chat_templates
    if not more:
        return template
    named = ({"default": template} if template else {}) | more
    return [{"name": name, "template": text} for name, text in named.items()]


def templates_of(template: Any, place: Place) -> Metadata:
    """The metadata keys of `chat_template` in tokenizer_config.json: one template, or a list of named templates.

    Raises:
        InputError: the list has an entry that is not a template, or a text is not valid Unicode.

    Example:
        >>> list(templates_of("{{ messages }}", Place("tokenizer_config.json")))
        ['tokenizer.chat_template']
    """
    if isinstance(template, str):
        return _unless_empty(KEY, as_text(template, place))
    if isinstance(template, list):
        return _named(template, place)
    if template is not None:
        log.warning("%s", place.error("is neither a text nor a list of templates; left out"))
    return {}


def _named(choices: list[Any], place: Place) -> Metadata:
    default: Metadata = {}
    templates: Metadata = {}
    names: dict[str, None] = {}
    for index, choice in enumerate(as_list(choices, place)):
        here = place / index
        fields = as_mapping(choice, here)
        name = re.sub("[^A-Za-z0-9]", "_", as_text(fields.get("name", ""), here / "name"))
        if not name or fields.get("template") is None:
            continue
        text = as_text(fields["template"], here / "template")
        if name == "default":
            default = _unless_empty(KEY, text)
        else:
            names[name] = None
            templates |= _unless_empty(f"{KEY}.{name}", text)
    listed = {"tokenizer.chat_templates": array(ValueType.STRING, names)} if names else {}
    return {**templates, **listed, **default}


def _unless_empty(key: str, text: str) -> Metadata:
    return {key: string(text)} if text else {}
