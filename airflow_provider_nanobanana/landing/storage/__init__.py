"""Where images are put: a folder of this machine, or an object store."""
