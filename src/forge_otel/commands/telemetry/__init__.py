"""The providers of commands that run pipelines, and what they have exported."""
