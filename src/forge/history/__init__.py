"""The past of pipelines, read from their storage."""
