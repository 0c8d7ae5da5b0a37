"""The same questions as an Inspect AI task."""

from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageUser, ContentImage, ContentText
from inspect_ai.scorer import includes
from inspect_ai.solver import generate


@task  # type: ignore[untyped-decorator]
def stub(folder: str, n: int) -> Task:
    samples = [
        Sample(
            id=path.stem,
            input=[
                ChatMessageUser(
                    content=[ContentImage(image=str(path)), ContentText(text="Question?")]
                )
            ],
            target="A",
        )
        for path in sorted(Path(folder).glob("*.jpg"))[:n]
    ]
    return Task(dataset=MemoryDataset(samples), solver=generate(), scorer=includes())
