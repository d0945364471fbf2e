"""What foreign libraries do with the files of strangers, each time in a child process with limits."""
