"""`forge diff`: differences between two runs."""
