"""The commands: a folder for each kind of thing they work on; ``command.py`` holds the options."""
