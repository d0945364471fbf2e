"""Parses and renders chat templates with Jinja. `limited.py` runs these functions in a child process.

Source: `chat_template_utils.py` of transformers, whose environment these templates are written for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment, nodes

# What stands for the token of the beginning, where a template writes it by its variable.
BOS_VARIABLE = "{bos_token}"


def survey(template: str) -> dict[str, Any]:
    """What a template may write: all of its constant texts, and what comes first. It is parsed and not run.

    Raises:
        ValueError: the template is broken. The message has the line.
    """
    from jinja2 import nodes

    whole = _parsed(template)
    texts: list[str] = []
    pending: list[nodes.Node] = [whole]
    while pending:
        node = pending.pop()
        if isinstance(node, nodes.TemplateData):
            texts.append(node.data)
        elif isinstance(node, nodes.Const) and isinstance(node.value, str):
            texts.append(node.value)
        elif not isinstance(node, nodes.Compare | nodes.Test | nodes.Call | nodes.Getitem):
            pending.extend(reversed(list(node.iter_child_nodes())))
    return {"texts": texts, "first": _first(whole.body)}


def render(argument: dict[str, Any]) -> str:
    """The text that the template `template` makes of the variables `variables`.

    Raises:
        ValueError: the template is broken, or refuses the variables.
    """
    from jinja2 import TemplateError

    environment = _environment()
    try:
        text = environment.from_string(argument["template"]).render(argument["variables"])
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise ValueError(f"line {line}: {error.message}" if line else str(error.message)) from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return text


def _parsed(template: str) -> nodes.Template:
    from jinja2 import TemplateSyntaxError

    try:
        return _environment().parse(template)
    except TemplateSyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.message}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _environment() -> Environment:
    """The environment of transformers: sandboxed, with loop controls and the block `generation`."""
    import json
    from datetime import datetime

    from jinja2 import TemplateError
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what the model writes. The block only writes its content."""

        tags = {"generation"}  # noqa: RUF012 (Jinja declares it so)

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _first(body: list[nodes.Node]) -> str | None:
    """The text or the variable that a template writes first; None if it is not known before it runs."""
    from jinja2 import nodes

    for node in body:
        if isinstance(node, nodes.Output):
            for part in node.nodes:
                if not isinstance(part, nodes.TemplateData) or part.data.strip():
                    return _leftmost(part)
        elif isinstance(node, nodes.If):
            branches = [node.body, *(other.body for other in node.elif_), node.else_]
            found = next((first for first in map(_first, branches) if first is not None), None)
            if found is not None:
                return found
        elif isinstance(node, nodes.For) and (found := _first(node.body)) is not None:
            return found
    return None


def _leftmost(node: nodes.Node) -> str | None:
    """What an expression writes first."""
    from jinja2 import nodes

    while True:
        if isinstance(node, nodes.TemplateData):
            return node.data.lstrip()
        if isinstance(node, nodes.Const):
            return str(node.value)
        if isinstance(node, nodes.Name):
            return BOS_VARIABLE if node.name == "bos_token" else None
        if isinstance(node, nodes.Add):
            node = node.left
        elif isinstance(node, nodes.Concat):
            node = node.nodes[0]
        elif isinstance(node, nodes.Filter) and node.node is not None:
            node = node.node
        elif isinstance(node, nodes.CondExpr):
            node = node.expr1
        else:
            return None
