"""The super-service: it finds services, keeps their jobs, and runs nobody's code."""
