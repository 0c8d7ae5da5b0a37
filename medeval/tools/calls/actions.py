"""Reads the calls of OpenThinkIMG: one JSON object with a thought and a list of actions."""

import json
from typing import Final

from medeval.tools.calls.syntax import CallRules, MalformedError, as_object, loaded
from medeval.types.sample import JsonValue
from medeval.types.trajectory import ParsedCall

ACTIONS_FORM: Final = '{"thought": "...", "actions": [{"name": ..., "arguments": {...}}]}'
MARK: Final = '"actions"'
FINAL_ACTION: Final = "Terminate"

# How many opening braces before "actions" are tried as the start of the object.
MAX_STARTS: Final = 64


def actions_calls(text: str, rules: CallRules) -> list[ParsedCall]:
    """The actions of the first object with actions, without the one that ends the conversation."""
    mark = text.find(MARK)
    if mark < 0:
        return []
    found = _enclosing(text, mark)
    if found is None:
        return [_malformed(text, mark, "the JSON object of the actions cannot be read")]
    start, end, actions = found
    if not isinstance(actions, list):
        return [_malformed(text, start, "the actions are a list")]
    calls = [_action(action, text[start:end], start, end) for action in actions]
    return [call for call in calls if call.name != FINAL_ACTION]


def terminate_argument(text: str) -> str | None:
    """The answer in the action that ends the conversation; None where there is none."""
    mark = text.find(MARK)
    found = _enclosing(text, mark) if mark >= 0 else None
    actions = found[2] if found else None
    for action in actions if isinstance(actions, list) else []:
        if isinstance(action, dict) and action.get("name") == FINAL_ACTION:
            arguments = action.get("arguments")
            answer = arguments.get("ans") if isinstance(arguments, dict) else None
            if isinstance(answer, str | int | float) and not isinstance(answer, bool):
                return str(answer).strip() or None
    return None


def _enclosing(text: str, mark: int) -> tuple[int, int, JsonValue] | None:
    """The start, the end and the actions of the object around the mark; None without one."""
    decoder = json.JSONDecoder()
    start = mark
    for _ in range(MAX_STARTS):
        start = text.rfind("{", 0, start)
        if start < 0:
            return None
        try:
            value, end = decoder.raw_decode(text, start)
            checked = loaded(text[start:end])
        except (ValueError, RecursionError, MalformedError):
            continue
        if end > mark and isinstance(checked, dict) and "actions" in value:
            return start, end, checked["actions"]
    return None


def _action(action: JsonValue, raw_text: str, start: int, end: int) -> ParsedCall:
    name: str | None = None
    arguments: dict[str, JsonValue] | None = None
    error: str | None = None
    try:
        if not isinstance(action, dict) or not isinstance(action.get("name"), str):
            raise MalformedError('an action has a "name"')
        name = str(action["name"])
        arguments = as_object(action.get("arguments", {}))
    except MalformedError as malformed:
        error = f"{malformed}; write {ACTIONS_FORM}"
    return ParsedCall(
        raw_text=raw_text, name=name, arguments=arguments, error=error, start=start, end=end
    )


def _malformed(text: str, start: int, what: str) -> ParsedCall:
    return ParsedCall(
        raw_text=text[start:],
        name=None,
        arguments=None,
        error=f"{what}; write {ACTIONS_FORM}",
        start=start,
        end=len(text),
    )
