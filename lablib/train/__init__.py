"""Training in small: losses, schedules (step -> value) and one visible loop."""
