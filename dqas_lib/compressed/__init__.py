"""What a selection is saved as: a folder of open formats, opened with one call."""
