"""The settings as text: rules, the file, the reference, the schema."""
