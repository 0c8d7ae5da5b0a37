"""Engines behind one seam, `base.Model`; import the one you need from its own module."""
