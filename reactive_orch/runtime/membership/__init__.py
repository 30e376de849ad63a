"""One worker as a member of its replica set: it joins, adopts generation after generation, and leaves."""
