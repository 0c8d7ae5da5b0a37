"""What the task reads of a row: the image as its own tasks give it, opened by Pillow."""

from pathlib import Path

from PIL import Image


def images(row: dict[str, str]) -> list[Image.Image]:
    return [Image.open(Path("images") / row["image"]).convert("RGB")]


def question(_: dict[str, str], __: object = None) -> str:
    return "Question?"


def target(_: dict[str, str]) -> str:
    return "A"
