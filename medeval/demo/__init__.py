"""A trained series of tiny checkpoints, shipped with medeval, and the trainer that made it."""

from medeval.demo.shipped import SERIES_DIRECTORY as SERIES_DIRECTORY
from medeval.demo.shipped import shipped_checkpoints as shipped_checkpoints
