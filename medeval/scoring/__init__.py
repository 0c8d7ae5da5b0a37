"""Reads answers out of replies, and gives verdicts on them."""
