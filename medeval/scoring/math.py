"""Whether two answers are equal as mathematics, by the math-verify package."""

import importlib.util
import logging
import threading

from medeval.errors import JudgeError, UsageError

# Longer answers are compared only as text: parsing them could take very long.
MAX_CHARACTERS = 1000
# Enforced by math-verify through SIGALRM, which works in the main thread only.
LIMIT_S = 5


def check_installed() -> None:
    """Raise UsageError, with the command that installs it, where math-verify is missing."""
    if importlib.util.find_spec("math_verify") is None:
        raise UsageError(
            "this judge needs the package math-verify, which is not installed",
            hint="pip install 'medeval[math]'",
        )


def are_equal(target: str, answer: str) -> bool:
    r"""Whether an answer equals a target, as text in any case or as the mathematics in `\boxed{}`.

    After GAIR-NLP/Med@c41310c, reward_server/verifier/utils_rule.py `verify_accuracy`, with its
    settings of math-verify; that function searches the whole response for the answer. A target
    that cannot be parsed equals only its own text. Raises UsageError without math-verify,
    and JudgeError outside the main thread.
    """
    if answer.strip().lower() == target.strip().lower():
        return True
    if max(len(answer), len(target)) > MAX_CHARACTERS:
        return False
    check_installed()
    if threading.current_thread() is not threading.main_thread():
        raise JudgeError(
            "math-verify can enforce its time limit only in the main thread",
            hint="judge from a terminal: medeval grade RUN --again",
        )
    return _are_equal(target, answer)


def _are_equal(target: str, answer: str) -> bool:
    import math_verify
    from latex2sympy2_extended import NormalizationConfig

    # math-verify logs a warning with the full text of each answer that it cannot parse
    logging.getLogger("math_verify").addHandler(logging.NullHandler())
    boxed_first = math_verify.LatexExtractionConfig(
        normalization_config=NormalizationConfig(
            nits=False, malformed_operators=False, basic_latex=True, boxed="all", units=True
        ),
        boxed_match_priority=0,
        try_extract_without_anchor=False,
    )
    gold = math_verify.parse(
        boxed(target),
        extraction_config=[boxed_first],
        extraction_mode="first_match",
        parsing_timeout=LIMIT_S,
    )
    if not gold:
        return False
    parsed = math_verify.parse(
        boxed(answer),
        extraction_config=[boxed_first],
        extraction_mode="first_match",
        parsing_timeout=LIMIT_S,
    ) or math_verify.parse(boxed(answer), extraction_mode="first_match", parsing_timeout=LIMIT_S)
    return bool(math_verify.verify(gold, parsed, timeout_seconds=LIMIT_S))


def boxed(text: str) -> str:
    r"""The text in `\boxed{}`, unless it contains `\boxed{` already."""
    return text if "\\boxed{" in text else f"\\boxed{{{text}}}"
