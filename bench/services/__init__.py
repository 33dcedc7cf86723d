"""What is measured: one trivial service, and the barest servers of the same work."""
