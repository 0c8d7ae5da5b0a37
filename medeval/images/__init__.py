"""Decoding, resizing and encoding images, within bounds on memory."""
