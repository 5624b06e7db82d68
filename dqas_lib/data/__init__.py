"""Images: data sets by name, folders of one's own, and what every stage works on (`ImageSet`)."""
