"""What the verbs that read checkpoints do: inspect, verify, convert, merge."""
