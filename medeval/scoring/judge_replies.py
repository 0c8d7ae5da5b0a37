"""What judges' models replied, kept beside a run, so that judging it again asks nothing anew."""

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
    """The file that a process appends replies to, by its name as a writer.

    >>> file_name(), file_name("2")
    ('judge_replies.jsonl', 'judge_replies.2.jsonl')
    """
    return "judge_replies.jsonl" if writer == "0" else f"judge_replies.{writer}.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReplyRecord:
    """One reply that held a verdict; `key` is that of the judge and its inquiry.

    Token counts are None where the server did not tell.
    """

    __pydantic_config__ = STRICT

    key: str
    judge: str
    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


def reply_key(judge: str, inquiry: Inquiry) -> str:
    """The sha256 of a judge's identity and all that it sends, which holds the answer.

    How the reply is read is part of the definition, and so of the identity.
    """
    sent = {
        "judge": judge,
        "system": inquiry.system,
        "prompt": inquiry.prompt,
        "max_tokens": inquiry.max_tokens,
    }
    return hashlib.sha256(canonical_json(sent).encode()).hexdigest()


class JudgeReplies:
    """Replies by key: in memory, and in a file where one is given. Entered before it is used.

    The file and those of other processes beside it are read at once; one process may hold it.
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
        """The reply's text, or None where none was kept."""
        return self._texts.get(key)

    def keep(self, record: JudgeReplyRecord) -> None:
        """Keep a reply. Raises RecordError where the file cannot be written."""
        if self._path is not None:
            # a run whose judges ask nobody has no such file
            self._appender = self._appender or Appender(self._path)
            self._appender.append(line(record))
        self._texts[record.key] = record.text
