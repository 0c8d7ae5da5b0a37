"""Replies of judges' models, kept in the run folder so that judging again sends nothing twice."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from medeval.scoring.judge_prompt import Inquiry
from medeval.store.files import Appender, read_lines
from medeval.store.fingerprints import canonical_json
from medeval.store.records import line, parse_record
from medeval.types.json import STRICT

FILES = "judge_replies*.jsonl"


def file_name(writer: str = "0") -> str:
    """The name of the file that the process called `writer` appends replies to.

    >>> file_name(), file_name("2")
    ('judge_replies.jsonl', 'judge_replies.2.jsonl')
    """
    return "judge_replies.jsonl" if writer == "0" else f"judge_replies.{writer}.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReplyRecord:
    """One reply with a verdict; `key` identifies the judge and its inquiry (`reply_key`).

    Token counts are None where the server does not report them.
    """

    __pydantic_config__ = STRICT

    key: str
    judge: str
    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


def reply_key(judge: str, inquiry: Inquiry) -> str:
    """The sha256 of a judge's identity and of all that it sends, the answer included.

    The ruling is not hashed again: it is part of the definition, and so of the identity.
    """
    sent = {
        "judge": judge,
        "system": inquiry.system,
        "prompt": inquiry.prompt,
        "max_tokens": inquiry.max_tokens,
    }
    return hashlib.sha256(canonical_json(sent).encode()).hexdigest()


class JudgeReplies:
    """Replies by key, in memory and, where `path` is given, in a file.

    Entering it reads that file and those of other processes in the same folder. Only one process
    may write to a file.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._appender: Appender | None = None
        self._texts: dict[str, str] = {}

    def __enter__(self) -> Self:
        for path in sorted(self._path.parent.glob(FILES)) if self._path else ():
            for number, data in read_lines(path):
                record = parse_record(JudgeReplyRecord, data, f"{path}, line {number}")
                self._texts[record.key] = record.text
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._appender is not None:
            self._appender.close()
            self._appender = None

    def get(self, key: str) -> str | None:
        """The reply's text, or None where no reply is kept."""
        return self._texts.get(key)

    def keep(self, record: JudgeReplyRecord) -> None:
        """Keep a reply. Raises RecordError where the file cannot be written."""
        if self._path is not None:
            # opened with the first reply: a run whose judges ask no model has no such file
            self._appender = self._appender or Appender(self._path)
            self._appender.append(line(record))
        self._texts[record.key] = record.text
