"""Flags made from the fields of `PlanFile`, for the commands that take options of a plan."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from medeval.cli.parsing import CommaSeparated, KeyValues, ParamType
from medeval.evaluation.plan_file import Flag, PlanFile

Command = TypeVar("Command", bound=Callable[..., Any])

RANGES: Final[Mapping[type, Callable[..., ParamType]]] = {
    int: click.IntRange,
    float: click.FloatRange,
}
# The options that name the model which judges ask.
JUDGE_MODEL: Final = tuple(name for name in PlanFile.model_fields if name.startswith("judge_"))
# A longer flag is on a line of its own, above its help.
FLAG_COLUMNS: Final = 27


class PlanOption(click.Option):
    """A flag that belongs to a group; its help leaves out the range of its values."""

    def __init__(self, *declarations: Any, group: str, **settings: Any) -> None:
        super().__init__(*declarations, **settings)
        self.group = group

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What stands in brackets behind the help."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


class GroupedCommand(click.Command):
    """A command whose help shows flags by group; one without a group joins those before it."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group, with the helps in one column."""
        sections: dict[str, list[tuple[str, str]]] = {}
        group = "Options"
        for parameter in self.get_params(ctx):
            group = getattr(parameter, "group", group)
            if (record := parameter.get_help_record(ctx)) is not None:
                sections.setdefault(group, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                aligned = [(flag.ljust(FLAG_COLUMNS), text) for flag, text in records]
                formatter.write_dl(aligned, col_max=FLAG_COLUMNS)


def plan_options(*names: str) -> Callable[[Command], Command]:
    """A decorator that adds flags to a command: of the named fields, or else of all fields."""

    def add(command: Command) -> Command:
        for name in reversed(names or tuple(PlanFile.model_fields)):
            command = _plan_option(name, PlanFile.model_fields[name])(command)
        return command

    return add


def _plan_option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    """A decorator that adds the flag of one field to a command."""
    flag = next(item for item in field.metadata if isinstance(item, Flag))
    value_types = [one for one in get_args(field.annotation) if one is not type(None)]
    is_optional = len(value_types) < len(get_args(field.annotation))
    value_type = value_types[0] if is_optional else field.annotation
    settings: dict[str, Any] = {"is_flag": True} if value_type is bool else {}
    if isinstance(field.default, int | str) and value_type is not bool:
        settings = {"default": field.default, "show_default": True}
    return click.option(
        *filter(None, (f"--{name.replace('_', '-')}", flag.alias)),
        cls=PlanOption,
        group=flag.group,
        metavar=flag.metavar or None,
        help=f"{field.description}" + (f"  [default: {flag.default}]" if flag.default else ""),
        multiple=value_type == tuple[str, ...],
        type=_parameter_type(value_type, flag, field.metadata),
        **settings,
    )


def _parameter_type(value_type: Any, flag: Flag, bounds: Sequence[Any]) -> ParamType | None:
    """How click reads a value; None for a flag that has none."""
    arguments = get_args(value_type)
    if value_type is bool:
        return None
    if get_origin(value_type) is Literal:
        return click.Choice(arguments)
    if get_origin(value_type) is dict:
        return KeyValues()
    if flag.metavar.endswith(",..."):
        return CommaSeparated(click.INT if int in arguments else click.STRING)
    for bound in bounds:
        if hasattr(bound, "ge"):
            return RANGES[value_type](min=bound.ge)
        if hasattr(bound, "gt"):
            return RANGES[value_type](min=bound.gt, min_open=True)
    return click.INT if value_type is int else click.STRING
