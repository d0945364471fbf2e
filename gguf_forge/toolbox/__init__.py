"""Looking into GGUF files, proving them right, changing them: one file for each verb."""
