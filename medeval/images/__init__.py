"""Image bytes decoded, resized, encoded and held."""
