"""What goes wrong in the world, and that nothing is lost or done twice for it."""
