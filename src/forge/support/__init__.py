"""Building blocks that know no concept of pipelines."""
