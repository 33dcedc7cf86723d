"""What several services need to know about texts; not a service itself."""
