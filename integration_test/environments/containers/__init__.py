"""The image, the compose file, and what happens to containers."""
