"""`forge ps`: runs in progress, and where their samples are."""
