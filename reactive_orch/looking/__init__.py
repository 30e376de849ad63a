"""Looking at how all of it stands from outside, again and again: for whoever watches."""
