"""Texts with placeholders, as `string.Template` writes them."""

from collections.abc import Set
from string import Template

from medeval.errors import DefinitionError


def check_template(owner: str, name: str, text: str, allowed: Set[str]) -> None:
    """Raise DefinitionError unless every placeholder of a text is one that will be filled in."""
    template = Template(text)
    if not template.is_valid():
        raise DefinitionError(
            f"{owner}: {name} has a '$' that starts no placeholder",
            hint="write '$$' for a dollar sign",
        )
    unknown = set(template.get_identifiers()) - allowed
    if unknown:
        raise DefinitionError(
            f"{owner}: {name} uses {sorted(unknown)!r}, which is not filled in; "
            f"known: {sorted(allowed)!r}"
        )
