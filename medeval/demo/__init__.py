"""Tiny checkpoints made from nothing, for the tests and for a first run without a download."""

from medeval.demo.series import demo_checkpoints as demo_checkpoints
