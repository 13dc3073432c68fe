"""The command line: one file per verb; nothing heavy is imported before the verb is known."""
