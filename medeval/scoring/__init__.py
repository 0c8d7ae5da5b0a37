"""Answers read out of replies, and the verdicts on them."""
